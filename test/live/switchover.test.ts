import { execFile } from 'node:child_process';
import { truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Proxy, cutAt, doAt } from '../faults/proxy.js';
import { guestTest } from '../qemu/guest-test.js';
import { QmpProxy } from './qmp-proxy.js';
import { Scene } from './scene.js';

const MIB = 2 ** 20;
const test = await guestTest();

test('a guest that was paused arrives paused, and counts on when it is resumed there', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  await scene.source.pause();
  await scene.move();
  t.is(await scene.destination.status(), 'paused');
  await scene.destination.cont();
  await scene.assertRunsThere(t);
});

test('a guest that was paused stays paused when its move fails', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  await scene.source.pause();
  const { port } = await scene.receive({ args: ['--timeout', '3'] });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [cutAt('end')] }));
  const { status, error } = await scene.send(proxy.to).ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /was not moved and stands still here, as before/);
  t.is(await scene.source.status(), 'paused');
  await scene.source.cont();
  await scene.assertRunsHere(t);
});

for (const again of ['with the same ballast-send', 'by recover'] as const) {
  test(`a guest that was paused, and whose state was saved before its move failed, is resumed by 'cont' as ever: put back ${again}`, async (t, image) => {
    t.timeout(240_000);
    const scene = await Scene.start(t, image);
    await scene.source.pause();
    const { port } = await scene.receive({ args: ['--timeout', '3'] });
    const victim: { sender?: ReturnType<Scene['send']> } = {};
    const killing = doAt('state-end', async () => {
      victim.sender?.kill('SIGKILL');
      proxy.cut();
      await victim.sender?.ended();
    });
    const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({
      toReceiver: [again === 'by recover' ? killing : cutAt('state-end')],
    }));
    victim.sender = scene.send(proxy.to);
    const { error } = await victim.sender.ended();
    let message = String(error?.['message']);
    if (again === 'by recover') {
      const recover = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath);
      const recovered = await recover.event('recovered', 20_000);
      t.is(recovered['action'], 'left-paused');
      message = String(recovered['message']);
    }
    t.regex(message, /stands still here, as before; QEMU calls that 'postmigrate' .* and 'cont' resumes it as ever/);
    t.is(await scene.source.status(), 'postmigrate');
    const { length } = (await scene.log()).ticks;
    await scene.source.cont();
    await scene.assertRunsHere(t);

    // It can be moved again after that.
    await scene.source.pause();
    t.is(await scene.source.status(), 'paused');
    t.true((await scene.log()).ticks.length > length);
    await scene.startWaiting();
    await scene.move();
    t.is(await scene.destination.status(), 'paused');
    await scene.destination.cont();
    await scene.assertRunsThere(t);
  });
}

for (const { kind, toReceiver } of [
  { kind: 'loaded', toReceiver: false },
  { kind: 'commit', toReceiver: true },
] as const) {
  test(`a receiver that is interrupted at '${kind}' takes the guest back, and says so: it goes on where it was`, async (t, image) => {
    t.timeout(240_000);
    const scene = await Scene.start(t, image);
    const { receiver, port } = await scene.receive();
    const interrupt = doAt(kind, async () => {
      receiver.kill('SIGINT');
      await scene.destination.ended();
    });
    const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () =>
      toReceiver ? { toReceiver: [interrupt] } : { toSender: [interrupt] },
    );
    const { status, error } = await scene.send(proxy.to).ended();
    t.is(status, 1);
    t.regex(String(error?.['message']), /the guest was not moved and runs on here/);
    t.is((await receiver.ended()).status, 130);
    t.is(proxy.connections, 1, 'the word was lost, and asked for again');
    await scene.assertRunsHere(t);
  });
}

test('a receiver that is interrupted after the commit does not take the guest back', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  const victim: { receiver?: Awaited<ReturnType<Scene['receive']>>['receiver'] } = {};
  const monitor = await QmpProxy.open(scene.folder, 'late', scene.destination.programQmpPath, (moment, command) => {
    if (moment === 'before' && command === 'cont') victim.receiver?.kill('SIGINT');
    return undefined;
  });
  t.teardown(() => {
    monitor.close();
  });
  const { receiver, port } = await scene.receive({ qmp: monitor.path });
  victim.receiver = receiver;
  const sender = scene.send(`127.0.0.1:${port}`);
  const { root } = await sender.event('done', 40_000);
  await sender.succeeded();
  t.is((await receiver.event('done', 20_000))['root'], root);
  await receiver.ended();
  await scene.assertRunsThere(t);
});

test('a destination that cannot resume the guest says that it never ran there: it goes on where it was', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  const monitor = await QmpProxy.open(scene.folder, 'refusing', scene.destination.programQmpPath, (moment, command) =>
    moment === 'before' && command === 'cont' ? { desc: 'Failed to get "write" lock' } : undefined,
  );
  t.teardown(() => {
    monitor.close();
  });
  const { receiver, port } = await scene.receive({ qmp: monitor.path });
  const { status, error } = await scene.send(`127.0.0.1:${port}`).ended();
  t.is(status, 1);
  t.regex(String(error?.['message']), /could not let the guest run.*the guest was not moved and runs on here/);
  const there = await receiver.ended();
  t.is(there.status, 1);
  t.regex(String(there.error?.['message']), /the guest cannot run here: .*Failed to get "write" lock/);
  await scene.destination.ended();
  await scene.assertRunsHere(t);
});

test('the word that the guest runs there is lost, and asked for again', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  const { receiver, port } = await scene.receive();
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, (connection) =>
    connection === 0 ? { toSender: [cutAt('published')] } : {},
  );
  const sender = scene.send(proxy.to, { args: ['--source-after', 'quit'] });
  await sender.event('done', 40_000);
  await Promise.all([sender.succeeded(), receiver.succeeded()]);
  await scene.assertRunsThere(t);
});

test('a sender that is killed when the guest runs there learns it from the destination when it recovers', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  const { receiver, port } = await scene.receive();
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const killing = {
    toSender: [
      doAt('published', async () => {
        victim.sender?.kill('SIGKILL');
        proxy.cut();
        await victim.sender?.ended();
      }),
    ],
  };
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, (connection) => (connection === 0 ? killing : {}));
  victim.sender = scene.send(proxy.to);
  await victim.sender.ended();
  const recover = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath);
  t.is((await recover.event('recovered', 20_000))['action'], 'left-paused');
  await Promise.all([recover.succeeded(), receiver.succeeded()]);
  t.is(await scene.source.status(), 'postmigrate');
  await scene.assertRunsThere(t);
});

test('both QEMUs have the same disk: its lock goes with the guest, or stays where the guest stays', async (t, image) => {
  t.timeout(240_000);
  const disk = join(tmpdir(), `ballast-live-${process.pid}.disk`);
  await writeFile(disk, '');
  await truncate(disk, 16 * MIB);
  t.teardown(async () => promisify(execFile)('rm', ['-f', disk]));
  const drive = ['-drive', `file=${disk},format=raw,if=virtio`];
  const isLocked = async (): Promise<boolean> => {
    const qemu = ['-machine', 'q35,accel=tcg', '-S', '-nodefaults', '-display', 'none', ...drive];
    const { stderr } = await promisify(execFile)('timeout', ['1', 'qemu-system-x86_64', ...qemu]).catch(
      (error: unknown) => error as { stderr: string },
    );
    return stderr.includes('Failed to get "write" lock');
  };
  const scene = await Scene.start(t, image, { devices: drive });

  const failing = await scene.receive({ args: ['--timeout', '3'] });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port: failing.port }, () => ({
    toSender: [cutAt('loaded')],
  }));
  t.is((await scene.send(proxy.to, { args: ['--timeout', '3'] }).ended()).status, 1);
  await scene.assertRunsHere(t);
  t.true(await isLocked(), 'the guest runs without the lock of its disk');
  await failing.receiver.ended();

  await scene.startWaiting();
  await scene.move();
  await scene.assertRunsThere(t);
  t.true(await isLocked());
  await scene.source.quit();
  t.true(await isLocked(), 'the lock was the source’s');
});

test('a balloon that is inflated and deflated during the move is right in the end', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image, { memoryMiB: 384, fillMiB: 96, staleMiB: 96 });
  const { receiver, port } = await scene.receive();
  // Slow enough for a round to last.
  const sender = scene.send(`127.0.0.1:${port}`, { args: ['--bandwidth', '40MiB'] });
  await sender.event('connected', 20_000);
  await scene.source.inflateBalloon(128 * MIB);
  await scene.source.inflateBalloon(64 * MIB);
  const { freeBytes } = await sender.event('done', 60_000);
  await Promise.all([sender.succeeded(), receiver.succeeded()]);
  t.true(Number(freeBytes) >= 64 * MIB);
  t.is(await scene.destination.balloonBytes(), 64 * MIB);
  await scene.assertRunsThere(t);
});

test('a guest that writes too fast is slowed down, and goes', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image, { churnMiB: 32 });
  const { receiver, port } = await scene.receive();
  // No move is so short: what is fixed of it alone takes as long.
  const args = ['--on-no-convergence', 'throttle', '--downtime-limit', '40', '--bandwidth', '60MiB'];
  const sender = scene.send(`127.0.0.1:${port}`, { args });
  await sender.event('done', 60_000);
  await Promise.all([sender.succeeded(), receiver.succeeded()]);
  t.regex(String((await sender.event('warning', 1000))['message']), /slowed down/);
  await scene.assertRunsThere(t);
});
