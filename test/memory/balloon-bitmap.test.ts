import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { ExtentSet, PAGE_SIZE, encodeBalloonBitmap, readBalloonBitmap } from '@ballast/shared/memory';
import { scratchFile, scratchFolder } from './scratch.js';

/** [first page, page after the last] of each run. */
function pageRuns(set: ExtentSet): [number, number][] {
  return [...set].map(({ start, end }) => [start / PAGE_SIZE, end / PAGE_SIZE]);
}

test('bit n is page n, lowest bit first', (t) => {
  const path = scratchFile(t, Uint8Array.of(0b0000_0001, 0b1000_0000, 0b0000_0110));
  t.deepEqual(pageRuns(readBalloonBitmap(path, 24 * PAGE_SIZE)), [
    [0, 1],
    [15, 16],
    [17, 19],
  ]);
});

test('a run goes on from one byte, word and megabyte of the bitmap to the next', (t) => {
  const bitmap = new Uint8Array(3 * 2 ** 20 + 5);
  const pages = bitmap.length * 8;
  for (const byte of [1, 2, 4, 5, 2 ** 20 - 1, 2 ** 20, bitmap.length - 1]) bitmap[byte] = 0xff;
  t.deepEqual(pageRuns(readBalloonBitmap(scratchFile(t, bitmap), pages * PAGE_SIZE)), [
    [8, 24],
    [32, 48],
    [(2 ** 20 - 1) * 8, (2 ** 20 + 1) * 8],
    [pages - 8, pages],
  ]);
});

test('all ones is all of the memory, all zeros nothing', (t) => {
  const memoryBytes = 999 * PAGE_SIZE;
  const ones = new Uint8Array(125).fill(0xff);
  ones[124] = 0b0111_1111;
  t.deepEqual(pageRuns(readBalloonBitmap(scratchFile(t, ones), memoryBytes)), [[0, 999]]);
  t.is(readBalloonBitmap(scratchFile(t, new Uint8Array(125)), memoryBytes).count, 0);
});

test('the last page may be short where the memory is', (t) => {
  const free = readBalloonBitmap(scratchFile(t, Uint8Array.of(0b10)), PAGE_SIZE + 100);
  t.deepEqual([...free], [{ start: PAGE_SIZE, end: PAGE_SIZE + 100 }]);
  t.deepEqual([...encodeBalloonBitmap(free, PAGE_SIZE + 100)], [0b10]);
});

/** Pages of a memory, and which of them are free: runs of some length, as balloons have them, or single pages. */
const anyPages = fc
  .array(fc.tuple(fc.boolean(), fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 300 }))), {
    minLength: 1,
    maxLength: 40,
  })
  .map((runs) => runs.flatMap(([isFree, length]) => Array<boolean>(length).fill(isFree)));

testProp('reads what a plain loop over the bits finds', [anyPages], (t, pages) => {
  const bitmap = new Uint8Array(Math.ceil(pages.length / 8));
  for (const [page, isFree] of pages.entries()) {
    const byte = Math.floor(page / 8);
    if (isFree) bitmap[byte] = (bitmap[byte] ?? 0) | (1 << (page % 8));
  }
  const memoryBytes = pages.length * PAGE_SIZE;
  const expected = ExtentSet.of(
    pages.flatMap((isFree, page) => (isFree ? [[page * PAGE_SIZE, (page + 1) * PAGE_SIZE] as const] : [])),
  );
  const path = scratchFile(t, bitmap);
  t.true(readBalloonBitmap(path, memoryBytes).equals(expected));
  t.deepEqual(encodeBalloonBitmap(expected, memoryBytes), bitmap);
});

test('only whole pages inside the memory are encoded', (t) => {
  const extents = ExtentSet.of([
    [100, 2 * PAGE_SIZE],
    [3 * PAGE_SIZE, 5 * PAGE_SIZE - 1],
    [7 * PAGE_SIZE, 100 * PAGE_SIZE],
  ]);
  t.deepEqual([...encodeBalloonBitmap(extents, 8 * PAGE_SIZE)], [0b1000_1010]);
});

for (const [name, length] of [
  ['short', 124],
  ['long', 126],
  ['empty', 0],
] as const) {
  test(`a bitmap that is too ${name} is refused, both lengths named`, (t) => {
    const path = scratchFile(t, new Uint8Array(length));
    const error = t.throws(() => readBalloonBitmap(path, 1000 * PAGE_SIZE), { instanceOf: BallastError });
    t.is(error.code, ErrorCode.BALLOON_MAP);
    t.true(error.message.includes(path));
    t.true(error.message.includes(`has ${length} bytes; expected 125,`));
  });
}

for (const bit of [13, 15]) {
  test(`bit ${bit} is refused where the memory has 13 pages`, (t) => {
    const path = scratchFile(t, Uint8Array.of(0xff, (1 << (bit - 8)) | 1));
    const error = t.throws(() => readBalloonBitmap(path, 13 * PAGE_SIZE), { instanceOf: BallastError });
    t.is(error.code, ErrorCode.BALLOON_MAP);
    t.true(error.message.includes(`bit ${bit} set, but the memory has 13 pages`));
  });
}

test('a bitmap that does not exist is not found', (t) => {
  const path = join(scratchFolder(t), 'missing');
  t.like(
    t.throws(() => readBalloonBitmap(path, PAGE_SIZE)),
    { code: ErrorCode.NOT_FOUND },
  );
});

test('a directory is no bitmap', (t) => {
  const path = join(scratchFolder(t), 'folder');
  mkdirSync(path);
  t.like(
    t.throws(() => readBalloonBitmap(path, PAGE_SIZE)),
    { code: ErrorCode.BAD_FILE },
  );
});

test('a device is no bitmap', (t) => {
  t.like(
    t.throws(() => readBalloonBitmap('/dev/null', PAGE_SIZE)),
    { code: ErrorCode.BAD_FILE },
  );
});

test('the bitmap of a tebibyte is read in well under a second', (t) => {
  const memoryBytes = 2 ** 40;
  const bitmap = new Uint8Array(memoryBytes / PAGE_SIZE / 8).fill(0xff, 1000, 20_000_000);
  bitmap[30_000_000] = 0x18;
  const path = scratchFile(t, bitmap);
  const before = performance.now();
  const free = readBalloonBitmap(path, memoryBytes);
  const milliseconds = performance.now() - before;
  t.is(free.count, 2);
  // 45 ms on an old machine with two cores; the rest is room for a busy one.
  t.true(milliseconds < 10_000, `${milliseconds} ms`);
});
