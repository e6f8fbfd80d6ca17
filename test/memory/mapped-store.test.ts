import { closeSync, ftruncateSync, mkdirSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { MappedStore } from '@ballast/receiver/mapped-store';
import { BallastError } from '@ballast/shared/errors';
import { countsEveryPage, temporaryFolder } from '../support/folder.js';
import { PAGE, allocatedPages } from '../support/memory-file.js';
import { mount, testUnless, whyNoMount } from '../support/mounts.js';

const MIB = 2 ** 20;
const onTmpfs = testUnless(await whyNoMount('tmpfs', 'size=1m'));

function openStore(t: ExecutionContext, path: string, bytes: number): { store: MappedStore; fd: number } {
  const fd = openSync(path, 'wx+', 0o600);
  ftruncateSync(fd, bytes);
  const store = new MappedStore({ fd, path, hugePageBytes: undefined, countsPages: true }, bytes, false);
  t.teardown(() => {
    store.close();
    closeSync(fd);
  });
  return { store, fd };
}

/** Pages that differ from each other and from what another seed gives. */
function pages(count: number, seed: number): Buffer {
  const bytes = Buffer.alloc(count * PAGE, seed);
  for (let page = 0; page < count; page++) bytes.writeUInt32LE(seed * 1e6 + page, page * PAGE);
  return bytes;
}

function bytesOf(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, offset);
  return bytes;
}

test('what is stored through a mapping is in the file, on both sides of where its windows meet', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'copy.mem');
  const { store, fd } = openStore(t, path, 769 * MIB);
  // Forward, across two windows at a time, back again, over what is there, and up to the very end.
  const writes = [
    { at: 0, count: 3 },
    { at: 256 * MIB - 2 * PAGE, count: 5 },
    { at: 768 * MIB - PAGE, count: 2 },
    { at: 100 * MIB, count: 1 },
    { at: 256 * MIB - PAGE, count: 2 },
    { at: 769 * MIB - 4 * PAGE, count: 4 },
  ];
  const stored = new Map<number, Buffer>();
  for (const [seed, { at, count }] of writes.entries()) {
    const bytes = pages(count, seed + 1);
    store.write(at, bytes);
    for (let page = 0; page < count; page++)
      stored.set(at + page * PAGE, bytes.subarray(page * PAGE, (page + 1) * PAGE));
  }
  for (const [at, expected] of stored) {
    t.deepEqual(bytesOf(fd, at, PAGE), expected, `by read(2), at ${at}`);
    const back = Buffer.alloc(PAGE);
    store.read(at, back);
    t.deepEqual(back, expected, `read back, at ${at}`);
  }
  if (await countsEveryPage(folder)) t.is(allocatedPages(path), stored.size);
});

onTmpfs('a full filesystem is an error and not a signal, and what was stored before stays', async (t) => {
  const mounted = join(await temporaryFolder(t), 'mounted');
  mkdirSync(mounted);
  await mount(t, mounted, 'tmpfs', 'size=1m');
  const { store, fd } = openStore(t, join(mounted, 'copy.mem'), 4 * MIB);
  const first = pages(128, 1);
  store.write(MIB, first);
  const overflow = (): void => {
    store.write(2 * MIB, pages(256, 2));
  };
  t.is(t.throws(overflow, { instanceOf: BallastError }).code, 'E_NO_SPACE');
  t.deepEqual(bytesOf(fd, MIB, first.length), first);
  const again = pages(128, 3);
  store.write(MIB, again);
  t.deepEqual(bytesOf(fd, MIB, again.length), again);
});

test('a file that became shorter is written by write(2), without a signal', async (t) => {
  const path = join(await temporaryFolder(t), 'copy.mem');
  const { store, fd } = openStore(t, path, 4 * MIB);
  store.write(3 * MIB, pages(2, 1));
  ftruncateSync(fd, MIB);
  const bytes = pages(2, 2);
  store.write(3 * MIB, bytes);
  t.deepEqual(bytesOf(fd, 3 * MIB, bytes.length), bytes);
});
