import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  PAGE_SIZE,
  SystemCallError,
  allocateBlocks,
  mapShared,
  punchHole,
  readAt,
  renameNoReplace,
  seekData,
  seekHole,
  tryLock,
  unlock,
  writeAt,
} from '@ballast/shared/memory';
import { hasTmpfs, scratchFolder } from './scratch.js';

const MEBIBYTE = 2 ** 20;

/** A test that needs a real tmpfs, whose holes are exactly the pages that were never written. */
function tmpfsTest(title: string, implementation: (t: ExecutionContext, folder: string) => void): void {
  test(title, (t) => {
    if (!hasTmpfs()) {
      t.log('skipped: /dev/shm is not writable here');
      t.pass();
      return;
    }
    implementation(t, scratchFolder(t, '/dev/shm'));
  });
}

/** A new file of `bytes`, all hole; closed when the test ends. */
function openSparse(t: ExecutionContext, folder: string, bytes: number): number {
  const fd = openSync(join(folder, 'guest.mem'), 'w+');
  t.teardown(() => {
    closeSync(fd);
  });
  ftruncateSync(fd, bytes);
  return fd;
}

function allocatedBytes(fd: number): number {
  return fstatSync(fd).blocks * 512;
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof SystemCallError) return error.code;
    throw error;
  }
  return 'none';
}

test('bytes are written and read where they are to be, beyond 4 GiB, too, and no further than the file goes', (t) => {
  const folder = scratchFolder(t);
  const fd = openSparse(t, folder, 5 * 2 ** 30);
  const bytes = Buffer.from('what was written');
  const at = 5 * 2 ** 30 - bytes.length;
  t.is(writeAt(fd, bytes, at), bytes.length);
  const back = Buffer.alloc(64, 0xee);
  t.is(readAt(fd, back.subarray(0, 40), at), bytes.length);
  t.deepEqual(back, Buffer.concat([bytes, Buffer.alloc(48, 0xee)]));
  t.is(readAt(fd, back, 5 * 2 ** 30), 0);
  t.is(writeAt(fd, bytes.subarray(3, 7), 0), 4);
  t.is(readAt(fd, back.subarray(8, 12), 0), 4);
  t.is(back.toString('latin1', 8, 12), 't wa');
  t.is(fstatSync(fd).size, 5 * 2 ** 30);
});

test('reading and writing that the kernel refuses is an error with its name', (t) => {
  const path = join(scratchFolder(t), 'read-only');
  writeFileSync(path, 'bytes');
  const fd = openSync(path, 'r');
  t.is(
    codeOf(() => writeAt(fd, Buffer.alloc(1), 0)),
    'EBADF',
  );
  closeSync(fd);
  t.is(
    codeOf(() => readAt(fd, Buffer.alloc(1), 0)),
    'EBADF',
  );
  const folder = openSync(scratchFolder(t), 'r');
  t.is(
    codeOf(() => readAt(folder, Buffer.alloc(1), 0)),
    'EISDIR',
  );
  closeSync(folder);
});

tmpfsTest('data and holes are found from any offset', (t, folder) => {
  const fd = openSparse(t, folder, MEBIBYTE);
  writeSync(fd, Buffer.alloc(2 * PAGE_SIZE, 1), 0, 2 * PAGE_SIZE, 10 * PAGE_SIZE);
  t.is(seekData(fd, 0), 10 * PAGE_SIZE);
  t.is(seekData(fd, 11 * PAGE_SIZE + 5), 11 * PAGE_SIZE + 5);
  t.is(seekHole(fd, 0), 0);
  t.is(seekHole(fd, 10 * PAGE_SIZE), 12 * PAGE_SIZE);
  t.is(seekHole(fd, MEBIBYTE - 1), MEBIBYTE - 1);
});

tmpfsTest('after the last data there is null, and beyond the end no hole either', (t, folder) => {
  const fd = openSparse(t, folder, MEBIBYTE);
  t.is(seekData(fd, 0), null);
  t.is(seekData(fd, MEBIBYTE), null);
  t.is(seekHole(fd, MEBIBYTE), null);
});

tmpfsTest('the end of a file that is all data counts as a hole', (t, folder) => {
  const fd = openSparse(t, folder, 0);
  writeSync(fd, Buffer.alloc(3 * PAGE_SIZE, 1));
  t.is(seekHole(fd, 0), 3 * PAGE_SIZE);
});

tmpfsTest('offsets beyond 32 bits arrive whole', (t, folder) => {
  const offset = 2 ** 40 + 5 * PAGE_SIZE;
  const fd = openSparse(t, folder, 2 ** 41);
  writeSync(fd, Buffer.of(1), 0, 1, offset);
  t.is(seekData(fd, 2 ** 32), offset);
  t.is(seekHole(fd, offset), offset + PAGE_SIZE);
  punchHole(fd, offset, PAGE_SIZE);
  t.is(seekData(fd, 0), null);
});

test('what is no open file is EBADF', (t) => {
  t.is(
    codeOf(() => seekData(-1, 0)),
    'EBADF',
  );
  t.is(
    codeOf(() => tryLock(-1)),
    'EBADF',
  );
});

tmpfsTest('a punched range reads as zeros and its blocks are given back', (t, folder) => {
  const fd = openSparse(t, folder, 0);
  writeSync(fd, Buffer.alloc(MEBIBYTE, 0x55));
  punchHole(fd, 3 * PAGE_SIZE, 5 * PAGE_SIZE);
  t.is(allocatedBytes(fd), MEBIBYTE - 5 * PAGE_SIZE);
  t.is(fstatSync(fd).size, MEBIBYTE);
  const bytes = Buffer.alloc(MEBIBYTE);
  readSync(fd, bytes, 0, MEBIBYTE, 0);
  const expected = Buffer.alloc(MEBIBYTE, 0x55).fill(0, 3 * PAGE_SIZE, 8 * PAGE_SIZE);
  t.is(bytes.compare(expected), 0);
});

tmpfsTest('punching a file that is open for reading only is refused', (t, folder) => {
  const path = join(folder, 'guest.mem');
  writeFileSync(path, Buffer.alloc(PAGE_SIZE, 1));
  const fd = openSync(path, 'r');
  t.is(
    codeOf(() => {
      punchHole(fd, 0, PAGE_SIZE);
    }),
    'EBADF',
  );
  closeSync(fd);
});

tmpfsTest('allocated blocks are there before anything is written', (t, folder) => {
  const fd = openSparse(t, folder, MEBIBYTE);
  allocateBlocks(fd, 0, 4 * PAGE_SIZE);
  t.is(allocatedBytes(fd), 4 * PAGE_SIZE);
});

tmpfsTest('what is written through a mapping is in the file, and the other way round', (t, folder) => {
  const fd = openSparse(t, folder, MEBIBYTE);
  const mapping = mapShared(fd, 2 * PAGE_SIZE, 4 * PAGE_SIZE, true);
  t.is(mapping.bytes.length, 4 * PAGE_SIZE);
  mapping.bytes.write('ballast', PAGE_SIZE, 'latin1');
  const found = Buffer.alloc(7);
  readSync(fd, found, 0, 7, 3 * PAGE_SIZE);
  t.is(found.toString('latin1'), 'ballast');
  writeSync(fd, 'balloon', 5 * PAGE_SIZE);
  t.is(mapping.bytes.toString('latin1', 3 * PAGE_SIZE, 3 * PAGE_SIZE + 7), 'balloon');
  mapping.unmap();
});

tmpfsTest('a mapping that cannot be made is an error, not a crash', (t, folder) => {
  const fd = openSparse(t, folder, MEBIBYTE);
  t.is(
    codeOf(() => mapShared(fd, 1, PAGE_SIZE, false)),
    'EINVAL',
  );
  t.is(
    codeOf(() => mapShared(fd, 0, 0, false)),
    'EINVAL',
  );
  const readOnly = openSync(join(folder, 'guest.mem'), 'r');
  t.is(
    codeOf(() => mapShared(readOnly, 0, PAGE_SIZE, true)),
    'EACCES',
  );
  closeSync(readOnly);
});

tmpfsTest('a mapping outlives its file being closed', (t, folder) => {
  const path = join(folder, 'guest.mem');
  writeFileSync(path, Buffer.alloc(PAGE_SIZE, 7));
  const fd = openSync(path, 'r');
  const mapping = mapShared(fd, 0, PAGE_SIZE, false);
  closeSync(fd);
  t.is(mapping.bytes[PAGE_SIZE - 1], 7);
  mapping.unmap();
});

tmpfsTest('a lock is held by one open file at a time, until it is closed', (t, folder) => {
  const path = join(folder, 'guest.mem');
  const first = openSync(path, 'w');
  const second = openSync(path, 'r');
  t.true(tryLock(first));
  t.true(tryLock(first));
  t.false(tryLock(second));
  closeSync(first);
  t.true(tryLock(second));
  closeSync(second);
});

tmpfsTest('a lock that is given back is free, though another process still has the open file', (t, folder) => {
  const path = join(folder, 'guest.mem');
  const first = openSync(path, 'w');
  const second = openSync(path, 'r');
  t.true(tryLock(first));
  const heir = spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', first] });
  t.teardown(() => heir.kill('SIGKILL'));
  unlock(first);
  closeSync(first);
  t.true(tryLock(second));
  closeSync(second);
});

tmpfsTest('a file gets a new name where nothing has it', (t, folder) => {
  const [from, to] = [join(folder, 'guest.mem.partial'), join(folder, 'guest – näme.mem')];
  writeFileSync(from, 'memory');
  renameNoReplace(from, to);
  t.false(existsSync(from));
  t.is(readFileSync(to, 'utf8'), 'memory');
});

tmpfsTest('a rename never replaces', (t, folder) => {
  const [from, to] = [join(folder, 'guest.mem.partial'), join(folder, 'guest.mem')];
  writeFileSync(from, 'new');
  writeFileSync(to, 'old');
  t.is(
    codeOf(() => {
      renameNoReplace(from, to);
    }),
    'EEXIST',
  );
  t.is(readFileSync(to, 'utf8'), 'old');
  t.is(readFileSync(from, 'utf8'), 'new');
});

tmpfsTest('renaming what does not exist is ENOENT', (t, folder) => {
  t.is(
    codeOf(() => {
      renameNoReplace(join(folder, 'missing'), join(folder, 'guest.mem'));
    }),
    'ENOENT',
  );
});
