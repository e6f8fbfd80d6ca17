import { join } from 'node:path';
import ava, { type ExecutionContext } from 'ava';
import type { ControlKind } from '@ballast/shared/protocol';
import { Proxy, cutAt, doAt, type Faults } from '../faults/proxy.js';
import type { GuestImage } from '../qemu/guest-image.js';
import { guestTest } from '../qemu/guest-test.js';
import type { Guest } from '../qemu/guest.js';
import { poll } from '../qemu/wait.js';
import { QmpProxy, type QmpFault } from './qmp-proxy.js';
import { Scene } from './scene.js';

/*
 * One guest, which lives through every failure that must leave it where it is; each test gives it another QEMU to go to.
 * That it counts without a gap to the end is what shows that none of them has harmed it.
 */

const test = await guestTest();

let opened: Promise<Scene> | undefined;

ava.after.always(async () => {
  await (await opened)?.close();
});

async function scene(image: GuestImage): Promise<Scene> {
  const before = await opened;
  // A failure of one test is no failure of the next.
  if ((await before?.source.status().catch(() => undefined)) !== 'running') {
    await before?.close();
    opened = Scene.open(image, { churnMiB: 4 });
  }
  const found = await opened;
  if (found === undefined) throw new Error('there is no scene');
  await found.startWaiting();
  return found;
}

/** Both programs give up soon. */
const IMPATIENT = ['--timeout', '3'];

/** The sender fails with a reason that says where the guest is; it goes on here. */
async function staysHere(
  t: ExecutionContext,
  at: Scene,
  sender: ReturnType<Scene['send']>,
  receiver: ReturnType<Scene['send']>,
): Promise<void> {
  const { status, error } = await sender.ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /the guest was not moved and runs on here/);
  await at.assertRunsHere(t);
  t.is((await receiver.ended()).status, 1);
}

/** QEMU's process has ended, or it waits as if nothing had been. */
async function isGone(guest: Guest): Promise<boolean> {
  return poll('the end of the waiting QEMU', 8000, async () =>
    guest.status().then(
      () => undefined,
      () => true,
    ),
  ).catch(() => false);
}

for (const { kind, toReceiver, quits } of [
  { kind: 'end', toReceiver: true, quits: false },
  { kind: 'verified', toReceiver: false, quits: true },
  { kind: 'state-end', toReceiver: true, quits: true },
  { kind: 'loaded', toReceiver: false, quits: true },
] as const) {
  test(`a link that breaks at '${kind}', after the stop, leaves the guest running where it was`, async (t, image) => {
    t.timeout(240_000);
    const at = await scene(image);
    const { receiver, port } = await at.receive({ args: IMPATIENT });
    const faults: Faults = toReceiver ? { toReceiver: [cutAt(kind)] } : { toSender: [cutAt(kind)] };
    const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => faults);
    await staysHere(t, at, at.send(proxy.to, { args: IMPATIENT }), receiver);
    t.is(proxy.connections, 1, 'a move is not tried again after the stop');
    if (quits) t.true(await isGone(at.destination), 'a QEMU that was told to take a guest in goes on waiting');
    else t.is(await at.destination.status(), 'inmigrate');
  });
}

for (const kind of ['round', 'end', 'state-end'] as const) {
  test(`a receiver that is killed at '${kind}' leaves the guest running where it was`, async (t, image) => {
    t.timeout(240_000);
    const at = await scene(image);
    const { receiver, port } = await at.receive();
    const kill = doAt(kind, async () => {
      receiver.kill('SIGKILL');
      await receiver.ended();
    });
    const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [kill] }));
    const { status } = await at.send(proxy.to, { args: [...IMPATIENT, '--retry', '1'] }).ended();
    t.is(status, 1);
    await at.assertRunsHere(t);
  });
}

for (const kind of ['end', 'state-end', 'commit'] as const) {
  test(`a waiting QEMU that dies at '${kind}' leaves the guest running where it was`, async (t, image) => {
    t.timeout(240_000);
    const at = await scene(image);
    const { receiver, port } = await at.receive({ args: IMPATIENT });
    const kill = doAt(kind, async () => {
      process.kill(Number(at.destination.pid), 'SIGKILL');
      await isGone(at.destination);
    });
    const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [kill] }));
    await staysHere(t, at, at.send(proxy.to, { args: IMPATIENT }), receiver);
  });
}

test('a commit that is lost with the link is not one: the receiver says so when it is asked', async (t, image) => {
  t.timeout(240_000);
  const at = await scene(image);
  const { receiver, port } = await at.receive({ args: IMPATIENT });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, (connection) =>
    connection === 0 ? { toReceiver: [cutAt('commit')] } : {},
  );
  await staysHere(t, at, at.send(proxy.to, { args: IMPATIENT }), receiver);
  t.is(proxy.connections, 2);
  t.true(await isGone(at.destination));
});

/** Breaks the monitor at one moment, once. */
function cutMonitor(moment: 'before' | 'after', command: string): QmpFault {
  let done = false;
  return (when, name, proxy) => {
    if (done || when !== moment || name !== command) return;
    done = true;
    proxy.cut();
  };
}

for (const [moment, command] of [
  ['before', 'stop'],
  ['after', 'stop'],
  ['before', 'migrate'],
  ['after', 'migrate'],
] as const) {
  test(`a monitor that breaks ${moment} '${command}' leaves the guest running where it was`, async (t, image) => {
    t.timeout(240_000);
    const at = await scene(image);
    const { receiver, port } = await at.receive({ args: IMPATIENT });
    const name = `source-${moment}-${command}`;
    const proxy = await QmpProxy.open(at.folder, name, at.source.programQmpPath, cutMonitor(moment, command));
    t.teardown(() => {
      proxy.close();
    });
    await staysHere(t, at, at.send(`127.0.0.1:${port}`, { qmp: proxy.path }), receiver);
  });
}

for (const [moment, command] of [
  ['before', 'migrate-incoming'],
  ['after', 'migrate-incoming'],
] as const) {
  test(`a waiting monitor that breaks ${moment} '${command}' leaves the guest running where it was`, async (t, image) => {
    t.timeout(240_000);
    const at = await scene(image);
    const proxy = await QmpProxy.open(
      at.folder,
      `${moment}-${command}`,
      at.destination.programQmpPath,
      cutMonitor(moment, command),
    );
    t.teardown(() => {
      proxy.close();
    });
    const { receiver, port } = await at.receive({ qmp: proxy.path });
    await staysHere(t, at, at.send(`127.0.0.1:${port}`), receiver);
    t.true(await isGone(at.destination));
  });
}

for (const { kind, stage, status } of [
  { kind: 'round', stage: 'rounds', status: 'running' },
  { kind: 'end', stage: 'stopped', status: 'paused' },
  { kind: 'state-end', stage: 'stopped', status: 'postmigrate' },
  { kind: 'commit', stage: 'committing', status: 'postmigrate' },
] as const satisfies readonly { kind: ControlKind; stage: string; status: string }[]) {
  test(`a sender that is killed at '${kind}' leaves a record, with which the guest goes on where it was`, async (t, image) => {
    t.timeout(240_000);
    const at = await scene(image);
    const { receiver, port } = await at.receive({ args: IMPATIENT });
    const victim: { sender?: ReturnType<Scene['send']> } = {};
    const killing = {
      toReceiver: [
        doAt(kind, async () => {
          victim.sender?.kill('SIGKILL');
          proxy.cut();
          await victim.sender?.ended();
        }),
      ],
    };
    const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, (connection) => (connection === 0 ? killing : {}));
    victim.sender = at.send(proxy.to);
    await victim.sender.ended();
    t.is(await at.source.status(), status);

    const refused = at.send(proxy.to);
    t.is((await refused.ended()).status, 1, 'another move began before the one that was interrupted is settled');
    t.regex(String((await refused.ended()).error?.['message']), /recover/);

    const recover = at.ballastSend('recover', '--qmp', at.source.programQmpPath);
    const recovered = await recover.event('recovered', 20_000);
    t.is(recovered['stage'], stage);
    t.is(recovered['action'], 'resumed');
    await recover.succeeded();
    await at.assertRunsHere(t);
    await receiver.ended();
  });
}

test('a commit that nobody answers leaves the guest paused, and only the word of a person resumes it', async (t, image) => {
  t.timeout(240_000);
  const at = await scene(image);
  const { receiver, port } = await at.receive();
  const kill = doAt('commit', async () => {
    receiver.kill('SIGKILL');
    await receiver.ended();
  });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [kill] }));
  const { status, error } = await at.send(proxy.to, { args: [...IMPATIENT, '--retry', '1'] }).ended();
  t.is(status, 1);
  t.is(error?.['code'], 'E_UNACKNOWLEDGED');
  t.regex(String(error?.['message']), /THE GUEST STAYS PAUSED HERE/);
  t.is(await at.source.status(), 'postmigrate');
  t.is(await at.destination.status(), 'paused', 'the guest there was not told to run');

  const recover = ['recover', '--qmp', at.source.programQmpPath, '--timeout', '1'];
  const asked = await at.ballastSend(...recover).ended();
  t.is(asked.status, 1);
  t.is(asked.error?.['code'], 'E_UNACKNOWLEDGED');
  t.is(await at.source.status(), 'postmigrate');

  await at.destination.quit();
  await at.ballastSend(...recover, '--destination', 'gone').succeeded();
  await at.assertRunsHere(t);
});

test('a guest that writes too fast stays where it is, if that was asked for', async (t, image) => {
  t.timeout(240_000);
  const at = await scene(image);
  const { receiver, port } = await at.receive({ args: IMPATIENT });
  const args = ['--downtime-limit', '1', '--on-no-convergence', 'fail'];
  const { status, error } = await at.send(`127.0.0.1:${port}`, { args }).ended();
  t.is(status, 1);
  t.is(error?.['code'], 'E_NO_CONVERGENCE');
  await at.assertRunsHere(t);
  t.is((await receiver.ended()).status, 1);
});

test('a guest that is moved again and again, and never gets away, is there in the end', async (t, image) => {
  t.timeout(240_000);
  const at = await scene(image);
  const { receiver, port } = await at.receive({ args: IMPATIENT });
  let cuts = 0;
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, (connection) => {
    if (connection < 2) cuts++;
    return connection < 2 ? { toReceiver: [cutAt('round')] } : {};
  });
  const sender = at.send(proxy.to);
  const { resumes } = await sender.event('connected', 20_000);
  t.false(resumes);
  const done = await sender.event('done', 40_000);
  await Promise.all([sender.succeeded(), receiver.succeeded()]);
  t.is(cuts, 2, 'the link did not break');
  t.true(Number(done['sentBytes']) < 2 * Number(done['dataBytes']), 'what had arrived was sent again');
  await at.assertRunsThere(t);
});

test('an ordinary migration works right after a move that failed', async (t, image) => {
  t.timeout(240_000);
  const at = await scene(image);
  const { receiver, port } = await at.receive({ args: IMPATIENT });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toSender: [cutAt('loaded')] }));
  await staysHere(t, at, at.send(proxy.to, { args: IMPATIENT }), receiver);

  await at.startWaiting();
  const socket = join(at.folder, 'ordinary.sock');
  await at.destination.qmp.command('migrate-incoming', { uri: `unix:${socket}` });
  await at.source.qmp.command('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  // Standing still: under TCG, QEMU's own migration now and then loses what a running guest writes (one in ten on a busy
  // machine, with no move before it).
  await at.source.qmp.command('stop');
  await at.source.qmp.command('migrate', { uri: `unix:${socket}` });
  // There, too: a guest that stands still is not resumed by a 'cont' that comes while QEMU still takes it in.
  await Promise.all([at.source.migrated(), at.destination.migrated()]);
  await at.destination.qmp.command('cont');
  await at.assertRunsThere(t);
});
