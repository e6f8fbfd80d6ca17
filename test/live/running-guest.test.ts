import { join } from 'node:path';
import { Proxy } from '../faults/proxy.js';
import { guestTest } from '../qemu/guest-test.js';
import { makeCertificates } from '../tls/certificates.js';
import { QmpProxy } from './qmp-proxy.js';
import { Scene, allocatedBytes } from './scene.js';

const MIB = 2 ** 20;
/** No move is so short: rounds are made until more of them lead nowhere. */
const ROUND_AFTER_ROUND = ['--downtime-limit', '1'];
const test = await guestTest();

test('a guest that writes memory all the time arrives whole, and counts on where it stopped', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image, { fillMiB: 64, churnMiB: 8 });
  const { sent, received } = await scene.move(...ROUND_AFTER_ROUND);
  t.is(sent['root'], received['root']);
  t.true(Number(sent['downtimeMs']) > 0);
  const rounds = sent['rounds'] as { round: number; sentBytes: number }[];
  t.true(rounds.length >= 4, 'at least a first round, two differences, and the one after the stop');
  t.deepEqual(
    rounds.map(({ round }) => round),
    rounds.map((_, index) => index + 1),
  );
  t.is(
    rounds.reduce((sum, { sentBytes }) => sum + sentBytes, 0),
    Number(sent['sentBytes']),
  );
  await scene.assertRunsThere(t);
  t.is(await scene.source.status(), 'postmigrate');
  await scene.assertNothingLeftSet(t);
});

test('a guest that may stand still for long enough goes after the first round', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image, { churnMiB: 8 });
  const { sent } = await scene.move('--downtime-limit', '60000');
  t.is((sent['rounds'] as unknown[]).length, 2, 'the first round, and the one after the stop');
  await scene.assertRunsThere(t);
});

test('a guest arrives compressed', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image, { churnMiB: 8 });
  const { sent } = await scene.move('--compress', 'lz4', ...ROUND_AFTER_ROUND);
  t.true(Number(sent['storedBytes']) < Number(sent['sentBytes']), 'nothing was compressed');
  await scene.assertRunsThere(t);
});

// Four store what comes through mappings of what the waiting QEMU has mapped, too.
for (const channels of ['1', '4']) {
  test(`a guest moves over TLS, by ${channels} channel(s)`, async (t, image) => {
    t.timeout(240_000);
    const scene = await Scene.start(t, image, { churnMiB: 8 });
    const { receiverDirectory, senderDirectory } = await makeCertificates(join(scene.folder, 'tls'));
    const { receiver, port } = await scene.receive({ args: ['--tls-dir', receiverDirectory] });
    const args = ['--tls-dir', senderDirectory, '--channels', channels, ...ROUND_AFTER_ROUND];
    const sender = scene.send(`127.0.0.1:${port}`, { args });
    const { root } = await sender.event('done', 60_000);
    t.is((await receiver.event('done', 30_000))['root'], root);
    await Promise.all([sender.succeeded(), receiver.succeeded()]);
    await scene.assertRunsThere(t);
  });
}

test('a sender that was killed at the commit asks the destination over TLS, too, when it recovers', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image);
  const { receiverDirectory, senderDirectory } = await makeCertificates(join(scene.folder, 'tls'));
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const monitor = await QmpProxy.open(
    scene.folder,
    'killing',
    scene.destination.programQmpPath,
    async (moment, command) => {
      if (moment !== 'before' || command !== 'cont') return;
      victim.sender?.kill('SIGKILL');
      proxy.cut();
      await victim.sender?.ended();
    },
  );
  t.teardown(() => {
    monitor.close();
  });
  const { receiver, port } = await scene.receive({ qmp: monitor.path, args: ['--tls-dir', receiverDirectory] });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({}));
  victim.sender = scene.send(proxy.to, { args: ['--tls-dir', senderDirectory] });
  await victim.sender.ended();
  const recover = scene.ballastSend('recover', '--qmp', scene.source.programQmpPath);
  t.is((await recover.event('recovered', 20_000))['action'], 'left-paused');
  await Promise.all([recover.succeeded(), receiver.succeeded()]);
  await scene.assertRunsThere(t);
});

test('two memory backends arrive over two channels, each in its place, and the balloon takes no memory there', async (t, image) => {
  t.timeout(240_000);
  const scene = await Scene.start(t, image, { nodes: 2, memoryMiB: 512, staleMiB: 128, balloonMiB: 256 });
  const before = await allocatedBytes(scene.sourceMemory);
  const { sent } = await scene.move('--source-after', 'quit', '--channels', '2');
  t.true(Number(sent['freeBytes']) >= 256 * MIB);
  await scene.assertRunsThere(t);
  t.is(await scene.destination.balloonBytes(), 256 * MIB);
  const [here, there] = [await allocatedBytes(scene.sourceMemory), await allocatedBytes(scene.destinationMemory)];
  t.true(here <= before + 8 * MIB, `the source had ${before} bytes and has ${here}`);
  t.true(there <= before + 8 * MIB, `the source had ${before} bytes and the destination has ${there}`);
});
