import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { ControlKind } from '@ballast/shared/protocol';
import { Proxy, doAt } from '../faults/proxy.js';
import { guestTest } from '../qemu/guest-test.js';
import type { Guest } from '../qemu/guest.js';
import { QmpProxy } from './qmp-proxy.js';
import { Scene } from './scene.js';

/* QEMU's own migration of the same guest, and its pause, by somebody else through another monitor. */

const test = await guestTest();

const IMPATIENT = ['--timeout', '3'];

/** Begins QEMU's own migration of the guest. */
async function migrate(scene: Scene, to: Guest, bytesPerSecond: number): Promise<void> {
  const socket = join(scene.folder, 'ordinary.sock');
  await to.qmp.command('migrate-incoming', { uri: `unix:${socket}` });
  await scene.source.qmp.command('migrate-set-parameters', { 'max-bandwidth': bytesPerSecond });
  await scene.source.qmp.command('migrate', { uri: `unix:${socket}` });
}

/** Moves the guest with QEMU's own migration. */
async function migrateWhole(scene: Scene, to: Guest): Promise<void> {
  await migrate(scene, to, 2 ** 40);
  await Promise.all([scene.source.migrated(), to.migrated()]);
}

/** The guest's monitor, and what happens once, when this command comes there. */
async function monitorOf(
  t: ExecutionContext,
  scene: Scene,
  at: { readonly moment: 'before' | 'after'; readonly command: string },
  act: () => Promise<void>,
): Promise<string> {
  let done = false;
  const monitor = await QmpProxy.open(scene.folder, 'between', scene.source.programQmpPath, async (moment, command) => {
    if (done || moment !== at.moment || command !== at.command) return undefined;
    done = true;
    await act();
    return undefined;
  });
  t.teardown(() => {
    monitor.close();
  });
  return monitor.path;
}

/** A sender that is killed when it says this. */
async function killedAt(t: ExecutionContext, scene: Scene, kind: ControlKind): Promise<void> {
  const { receiver, port } = await scene.receive({ args: IMPATIENT });
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const kill = doAt(kind, async () => {
    victim.sender?.kill('SIGKILL');
    proxy.cut();
    await victim.sender?.ended();
  });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [kill] }));
  victim.sender = scene.send(proxy.to);
  await victim.sender.ended();
  receiver.kill('SIGTERM');
  await receiver.ended();
}

for (const kind of ['round', 'state-end'] as const satisfies readonly ControlKind[]) {
  test(`a guest that somebody has migrated after its sender was killed at '${kind}' is not resumed by recover`, async (t, image) => {
    t.timeout(120_000);
    const scene = await Scene.start(t, image);
    await killedAt(t, scene, kind);
    const other = await scene.startOther();
    await scene.source.qmp.command('migrate-set-capabilities', {
      capabilities: [{ capability: 'x-ignore-shared', state: false }],
    });
    await scene.source.cont();
    await migrateWhole(scene, other);
    t.is(await other.status(), 'running');

    const recover = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath);
    const { action, message } = await recover.event('recovered', 20_000);
    t.is(action, 'left-paused');
    t.regex(String(message), /somebody else has migrated it/);
    t.is(await scene.source.status(), 'postmigrate');
  });
}

test('a guest that somebody has paused after its sender was killed in a round stays paused', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  await killedAt(t, scene, 'round');
  await scene.source.pause();
  const recover = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath);
  const { action, message } = await recover.event('recovered', 20_000);
  t.is(action, 'left-paused');
  t.regex(String(message), /somebody else has paused it/);
  t.is(await scene.source.status(), 'paused');
});

test('a guest whose sender was killed while it slowed it down is resumed by recover', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image, { churnMiB: 32 });
  const { receiver, port } = await scene.receive({ args: IMPATIENT });
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const qmp = await monitorOf(t, scene, { moment: 'after', command: 'stop' }, async () => {
    victim.sender?.kill('SIGKILL');
    await victim.sender?.ended();
  });
  const record = join(scene.folder, 'record.json');
  const slowing = ['--on-no-convergence', 'throttle', '--downtime-limit', '40', '--bandwidth', '60MiB'];
  victim.sender = scene.send(`127.0.0.1:${port}`, { qmp, args: [...slowing, '--record', record] });
  await victim.sender.ended();
  t.is(await scene.source.status(), 'paused');
  const recover = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath, '--record', record);
  const { stage, action } = await recover.event('recovered', 20_000);
  t.deepEqual([stage, action], ['throttled', 'resumed']);
  receiver.kill('SIGTERM');
  await receiver.ended();
  await scene.assertRunsHere(t);
});

test('a guest that somebody migrates after its stop is not resumed when its move fails', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const { port } = await scene.receive({ args: IMPATIENT });
  const other = await scene.startOther();
  const qmp = await monitorOf(t, scene, { moment: 'before', command: 'migrate-set-capabilities' }, async () => {
    await migrateWhole(scene, other);
    await other.cont();
  });
  const { status, error } = await scene.send(`127.0.0.1:${port}`, { qmp }).ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /stands still here, as somebody else has migrated it/);
  t.is(await scene.source.status(), 'postmigrate');
  t.is(await other.status(), 'running');
});

test('what somebody migrates after the stop of a move goes on when the move fails', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const { port } = await scene.receive({ args: IMPATIENT });
  const other = await scene.startOther();
  const qmp = await monitorOf(t, scene, { moment: 'after', command: 'stop' }, async () => {
    await migrate(scene, other, 2 ** 20);
  });
  const { status, error } = await scene.send(`127.0.0.1:${port}`, { qmp }).ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /migrates its guest already, for somebody else.*runs on here/);
  t.is(await scene.source.status(), 'running');
  await scene.source.qmp.command('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  await Promise.all([scene.source.migrated(), other.migrated()]);
  t.is(await other.status(), 'running');
});
