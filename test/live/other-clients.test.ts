import { readFileSync } from 'node:fs';
import { readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { Proxy, doAt } from '../faults/proxy.js';
import { guestTest } from '../qemu/guest-test.js';
import { QmpClient } from '../qemu/qmp.js';
import { poll } from '../qemu/wait.js';
import { QmpProxy, type QmpFault } from './qmp-proxy.js';
import { Scene, allocatedBytes } from './scene.js';

/* A monitor serves one client, but a guest may have several monitors: what somebody else does through another one. */

const test = await guestTest();

/** The guest's monitor, with something that happens on the way. */
async function monitorOf(t: ExecutionContext, scene: Scene, fault: QmpFault): Promise<string> {
  const monitor = await QmpProxy.open(scene.folder, 'between', scene.source.programQmpPath, fault);
  t.teardown(() => {
    monitor.close();
  });
  return monitor.path;
}

/** The move fails, and says that the guest is where it was. */
async function staysHere(t: ExecutionContext, scene: Scene, sender: ReturnType<Scene['send']>): Promise<void> {
  const { status, error } = await sender.ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /was let run .* while it was moved; the guest was not moved and runs on here/);
  await scene.assertRunsHere(t);
}

for (const alsoPauses of [false, true]) {
  test(`a guest that somebody else lets run after the stop${alsoPauses ? ', and pauses again,' : ''} is not moved with the memory from before`, async (t, image) => {
    t.timeout(120_000);
    const scene = await Scene.start(t, image, { churnMiB: 4 });
    const qmp = await monitorOf(t, scene, async (moment, command) => {
      if (moment === 'before' && command === 'migrate') {
        await scene.source.cont();
        await sleep(200);
        if (alsoPauses) await scene.source.pause();
      }
      return undefined;
    });
    const { port } = await scene.receive({ args: ['--timeout', '3'] });
    await staysHere(t, scene, scene.send(`127.0.0.1:${port}`, { qmp }));
  });
}

test('a guest that somebody else lets run after its state was saved is not committed', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const { port } = await scene.receive({ args: ['--timeout', '3'] });
  const cont = doAt('loaded', async () => scene.source.cont());
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toSender: [cont] }));
  await staysHere(t, scene, scene.send(proxy.to));
});

test('a guest that somebody else pauses while it is slowed down stays paused, and arrives so', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image, { churnMiB: 32 });
  let paused = false;
  const qmp = await monitorOf(t, scene, async (moment, command) => {
    if (paused || moment !== 'after' || command !== 'cont') return undefined;
    paused = true;
    await scene.source.pause();
    return undefined;
  });
  const { receiver, port } = await scene.receive();
  const args = ['--on-no-convergence', 'throttle', '--downtime-limit', '40', '--bandwidth', '60MiB'];
  const sender = scene.send(`127.0.0.1:${port}`, { qmp, args });
  await sender.event('done', 60_000);
  await Promise.all([sender.succeeded(), receiver.succeeded()]);
  t.true(paused);
  t.is(await scene.destination.status(), 'paused');
  await scene.destination.cont();
  await scene.assertRunsThere(t);
});

test('an interruption between the word that the guest is loaded and the commit is in time', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const { receiver, port } = await scene.receive({ args: ['--timeout', '3'] });
  let loaded = false;
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const qmp = await monitorOf(t, scene, async (moment, command) => {
    if (!loaded || moment !== 'before' || command !== 'query-migrate') return undefined;
    loaded = false;
    victim.sender?.kill('SIGINT');
    await sleep(500);
    return undefined;
  });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({
    toSender: [
      doAt('loaded', () => {
        loaded = true;
      }),
    ],
  }));
  victim.sender = scene.send(proxy.to, { qmp, args: ['--timeout', '3'] });
  const { status, error } = await victim.sender.ended();
  t.is(status, 130);
  t.regex(String(error?.['message']), /the guest was not moved and runs on here/);
  await receiver.ended();
  await scene.assertRunsHere(t);
});

/** Kills the sender in the middle of the switch. @returns where its record is */
async function killedAtSwitch(t: ExecutionContext, scene: Scene): Promise<string> {
  const { receiver, port } = await scene.receive({ args: ['--timeout', '3'] });
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const kill = doAt('state-end', async () => {
    victim.sender?.kill('SIGKILL');
    proxy.cut();
    await victim.sender?.ended();
  });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [kill] }));
  const record = join(scene.folder, 'record.json');
  victim.sender = scene.send(proxy.to, { args: ['--record', record] });
  await victim.sender.ended();
  await receiver.ended();
  return record;
}

test('recover never resumes a guest of which a person says that it runs there, however far the move had come', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const record = await killedAtSwitch(t, scene);
  t.is((JSON.parse(readFileSync(record, 'utf8')) as { stage: string }).stage, 'stopped');
  const args = ['recover', '--qmp', scene.source.programQmpPath, '--record', record];
  const recovered = await scene.ballastSend(...args, '--destination', 'runs').event('recovered', 20_000);
  t.is(recovered['action'], 'left-paused');
  t.is(await scene.source.status(), 'postmigrate');
  await scene.assertNothingLeftSet(t);
});

test('recover touches no other guest than the one of its record', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const record = await killedAtSwitch(t, scene);
  await scene.startWaiting();
  await scene.destination.qmp.command('migrate-set-parameters', { 'max-bandwidth': 2 ** 30 });
  const other = scene.ballastSend('recover', '--qmp', scene.destination.programQmpPath, '--record', record);
  const { status, error } = await other.ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /another QEMU/);
  t.is((await scene.destination.qmp.query('query-migrate-parameters'))['max-bandwidth'], 2 ** 30);
  const own = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath, '--record', record);
  t.is((await own.event('recovered', 20_000))['action'], 'resumed');
  await scene.assertRunsHere(t);
});

/** A socket that a program has opened besides its standard streams. */
async function socketOf(pid: number): Promise<string | undefined> {
  const folder = `/proc/${pid}/fd`;
  const opened = (await readdir(folder)).filter((fd) => Number(fd) > 2);
  const links = await Promise.all(opened.map(async (fd) => readlink(join(folder, fd)).catch(() => '')));
  return links.find((target) => target.startsWith('socket:'));
}

test('recover that waits for a monitor which somebody else holds can be interrupted', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const record = await killedAtSwitch(t, scene);
  const holder = await QmpClient.connect(scene.source.programQmpPath);
  const args = ['recover', '--qmp', scene.source.programQmpPath, '--record', record];
  const waiting = scene.ballastSend(...args);
  await poll('a connection to the monitor', 20_000, async () => socketOf(Number(waiting.pid)));
  const began = performance.now();
  waiting.kill('SIGINT');
  t.is((await waiting.ended()).status, 130);
  t.true(performance.now() - began < 5000, 'it waited to the end');
  holder.close();
  t.is((await scene.ballastSend(...args).event('recovered', 20_000))['action'], 'resumed');
  await scene.assertRunsHere(t);
});

test('memory is written for a QEMU that waits only: one that has ended since is noticed before', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const { receiver, port } = await scene.receive({ args: ['--timeout', '3'] });
  process.kill(Number(scene.destination.pid), 'SIGKILL');
  await scene.destination.ended();
  const before = await allocatedBytes(scene.destinationMemory);
  const { status } = await scene.send(`127.0.0.1:${port}`, { args: ['--retry', '1'] }).ended();
  t.is(status, 1);
  const { error } = await receiver.ended();
  t.is(error?.['code'], 'E_QMP');
  t.is(await allocatedBytes(scene.destinationMemory), before, 'somebody else may use that file by now');
  await scene.assertRunsHere(t);
});

test('two moves of one guest, through two monitors: the second is refused', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  scene.source.qmp.close();
  const { receiver, port } = await scene.receive({ args: ['--timeout', '3'] });
  const first = scene.send(`127.0.0.1:${port}`, { args: ['--bandwidth', '4MiB'] });
  await first.event('connected', 20_000);
  const second = await scene.send('127.0.0.1:1', { qmp: join(scene.folder, 'source.qmp') }).ended();
  t.is(second.status, 1);
  t.is(second.error?.['code'], 'E_BUSY');
  first.kill('SIGINT');
  await Promise.all([first.ended(), receiver.ended()]);
  await scene.source.waitForTicks((await scene.log()).ticks.length + 5);
});
