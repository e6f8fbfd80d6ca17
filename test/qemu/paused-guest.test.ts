import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { moveMemory } from './ballast-programs.js';
import { guestTest } from './guest-test.js';
import type { GuestImage } from './guest-image.js';
import { CHECK_INTERVAL, CHECK_TURNS } from './guest-init.js';
import { Guest, type GuestMemory } from './guest.js';
import { punchesStay, roomyFolder } from './roomy-folder.js';
import { parseSerial } from './serial-log.js';

const MIB = 2 ** 20;
const BLOCK_BYTES = 512;

/** What a filesystem may take for itself beside the data: index blocks, and the rounding of the last page. */
const BLOCK_SLACK = MIB / BLOCK_BYTES;

const test = await guestTest();

for (const [description, nodes] of [
  ['one memory file', 1],
  ['two NUMA nodes, each with a file of its own', 2],
] as const) {
  test(`a paused guest with ${description} counts on where it stopped, on another QEMU`, async (t, image) => {
    t.timeout(240_000);
    await movePausedGuest(t, image, { nodes, memoryMiB: 512, fillMiB: 64, staleMiB: 192, balloonMiB: 288 });
  });
}

interface Shape {
  readonly nodes: number;
  readonly memoryMiB: number;
  readonly fillMiB: number;
  readonly staleMiB: number;
  readonly balloonMiB: number;
}

async function movePausedGuest(t: ExecutionContext, image: GuestImage, shape: Shape): Promise<void> {
  const memoryBytes = shape.memoryMiB * MIB;
  const memoryFolder = await roomyFolder(2 * memoryBytes);
  t.teardown(async () => rm(memoryFolder, { recursive: true, force: true }));
  const folder = await mkdtemp(join(tmpdir(), 'ballast-qemu-'));
  t.teardown(async () => rm(folder, { recursive: true, force: true }));
  t.log(`memory files in ${memoryFolder}`);
  const memoryOf = (name: string): readonly GuestMemory[] =>
    Array.from({ length: shape.nodes }, (_, node) => ({
      path: join(memoryFolder, `${name}-${node}.mem`),
      bytes: memoryBytes / shape.nodes,
    }));
  const [source, destination] = [memoryOf('source'), memoryOf('destination')];

  const guest = await Guest.start({ ...shape, image, memory: source, folder, name: 'source' });
  t.teardown(async () => guest.dispose());
  await guest.waitForTicks(3);
  const residentBefore = await residentBytes(source);
  await guest.inflateBalloon(shape.balloonMiB * MIB);
  const given = residentBefore - (await residentBytes(source));
  const holesShowBalloon = await punchesStay(memoryFolder);
  if (holesShowBalloon)
    t.true(given > (shape.staleMiB / 2) * MIB, `the balloon gave only ${given} bytes back to the host`);
  const deviceState = join(folder, 'device-state');
  await guest.saveDeviceState(deviceState);
  const saidBefore = await guest.serialText();

  for (const { path } of source) await flush(path);
  const blocksBefore = await blocksOf(source);
  const transfer = await moveMemory(pathsOf(source), pathsOf(destination));
  t.deepEqual(await blocksOf(source), blocksBefore, 'reading the source allocated or freed memory of it');
  t.regex(String(transfer.sent['root']), /^[0-9a-f]{64}$/);
  t.is(transfer.sent['root'], transfer.received['root']);
  const free = Number(transfer.sent['freeBytes']);
  if (holesShowBalloon) t.true(free >= shape.balloonMiB * MIB, `only ${free} bytes were known to be free`);
  t.is(await guest.status(), 'postmigrate');
  await guest.quit();

  const blocksMoved = await blocksOf(destination);
  for (const [index, { path }] of source.entries()) {
    const [had, has] = [blocksBefore[index] ?? 0, blocksMoved[index] ?? 0];
    t.true(has <= had + BLOCK_SLACK, `file ${index} had ${had} blocks and has ${has} at the destination`);
    await t.notThrowsAsync(promisify(execFile)('cmp', [path, destination[index]?.path ?? '']));
  }

  const moved = await Guest.start({ image, memory: destination, folder, name: 'destination', incoming: true });
  t.teardown(async () => moved.dispose());
  await moved.loadDeviceState(deviceState);
  t.is(await moved.status(), 'paused');
  t.is(await moved.balloonBytes(), shape.balloonMiB * MIB);
  await moved.cont();
  await moved.waitForSerial(
    'a check of all of the fill',
    (log) => log.goodSums.length + log.badSums.length > CHECK_TURNS,
  );

  // The pause may have cut a line in two: its end is in the destination's log. Together they are as if nothing had happened.
  const log = parseSerial(saidBefore + (await moved.serialText()));
  t.deepEqual(log.badSums, []);
  t.deepEqual(
    log.ticks,
    log.ticks.map((_, index) => index + 1),
    'a tick is missing, repeated or damaged',
  );
  t.true(log.ticks.length >= parseSerial(saidBefore).ticks.length + CHECK_INTERVAL * CHECK_TURNS);
}

async function blocksOf(memory: readonly GuestMemory[]): Promise<number[]> {
  return Promise.all(memory.map(async ({ path }) => (await stat(path)).blocks));
}

/** On a disk, blocks are counted for good only when everything is written to it. */
async function flush(path: string): Promise<void> {
  const file = await open(path);
  await file.sync();
  await file.close();
}

async function residentBytes(memory: readonly GuestMemory[]): Promise<number> {
  return (await blocksOf(memory)).reduce((sum, blocks) => sum + blocks * BLOCK_BYTES, 0);
}

function pathsOf(memory: readonly GuestMemory[]): string[] {
  return memory.map(({ path }) => path);
}
