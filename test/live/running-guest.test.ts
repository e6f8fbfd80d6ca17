import { guestTest } from '../qemu/guest-test.js';
import { Scene, allocatedBytes } from './scene.js';

const MIB = 2 ** 20;
const test = await guestTest();

test('a guest that writes memory all the time arrives whole, and counts on where it stopped', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image, { fillMiB: 64, churnMiB: 8 });
  const { sent, received } = await scene.move();
  t.is(sent['root'], received['root']);
  t.true(Number(sent['downtimeMs']) > 0);
  const rounds = sent['rounds'] as { round: number; sentBytes: number }[];
  t.true(rounds.length >= 3, 'at least a first round, one difference, and the one after the stop');
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

test('two memory backends arrive over two channels, each in its place, and the balloon takes no memory there', async (t, image) => {
  t.timeout(120_000);
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
