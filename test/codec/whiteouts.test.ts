import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { MAX_WHITEOUTS, WHITEOUT_SIZE, WhiteoutEncoder, decodeWhiteouts, type PageRun } from '@ballast/shared/protocol';
import { MOST_PAGES, aPage, someRuns, type Run } from './arbitraries.js';
import { readNaiveWhiteouts, writeNaiveWhiteouts } from './naive.js';

function decode(payload: Uint8Array, count = Math.ceil(payload.length / 9), pages = MOST_PAGES): PageRun[] {
  return [...decodeWhiteouts(Buffer.from(payload), count, pages)];
}

function encode(runs: readonly Run[]): Buffer {
  const encoder = new WhiteoutEncoder();
  for (const { start, end } of runs) encoder.add(start, end);
  return encoder.take();
}

/** Runs of a few pages, so that all of them fit one frame. */
const shortRuns: fc.Arbitrary<Run[]> = someRuns.map((runs) =>
  runs.map(({ start, end }) => ({ start, end: Math.min(end, start + 1 + (start % 7)) })),
);

/** Each page of the runs. */
function pagesOf(runs: readonly Run[]): bigint[] {
  return runs.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, index) => BigInt(start + index)));
}

/** The naive whiteouts of these pages, with one byte set. */
function whiteoutsWith(pages: readonly number[], at: number, byte: number): Uint8Array {
  const bytes = writeNaiveWhiteouts(pages.map(BigInt));
  bytes[at] = byte;
  return bytes;
}

testProp('pages come back as the runs that they were', [shortRuns], (t, runs) => {
  t.deepEqual(decode(encode(runs)), runs);
});

testProp('the fast encoder writes what the naive decoder reads', [shortRuns], (t, runs) => {
  t.deepEqual(readNaiveWhiteouts(encode(runs)), pagesOf(runs));
});

testProp('the fast encoder writes the bytes that the naive encoder writes', [shortRuns], (t, runs) => {
  t.deepEqual(encode(runs), Buffer.from(writeNaiveWhiteouts(pagesOf(runs))));
});

testProp(
  'the fast decoder reads what the naive encoder writes, in any order',
  [fc.array(aPage, { minLength: 1, maxLength: 50 })],
  (t, pages) => {
    const decoded = decode(writeNaiveWhiteouts(pages.map(BigInt)));
    t.deepEqual(
      pagesOf(decoded),
      pages.map((page) => BigInt(page)),
    );
  },
);

testProp(
  'whatever bytes come, pages of the region are returned or the peer is blamed',
  [fc.uint8Array({ maxLength: 90 }), fc.nat(11), aPage],
  (t, payload, count, pages) => {
    try {
      for (const { start, end } of decode(payload, count, pages)) t.true(start >= 0 && end > start && end <= pages);
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

test('an encoder takes as many pages as a frame may have, and says where it stopped', (t) => {
  const encoder = new WhiteoutEncoder();
  t.is(encoder.add(5, 10), 10);
  t.false(encoder.full);
  t.is(encoder.add(100, 1_000_000), 100 + 7281 - 5);
  t.true(encoder.full);
  t.is(encoder.count, MAX_WHITEOUTS);
  t.is(encoder.take().length, 65_529);
});

test('a full encoder takes nothing more', (t) => {
  const encoder = new WhiteoutEncoder();
  encoder.add(0, MAX_WHITEOUTS);
  t.is(encoder.add(50_000, 50_001), 50_000);
  t.is(encoder.count, MAX_WHITEOUTS);
});

test('an encoder that was emptied begins anew', (t) => {
  const encoder = new WhiteoutEncoder();
  encoder.add(0, 7000);
  encoder.take();
  t.is(encoder.count, 0);
  encoder.add(2 ** 33, 2 ** 33 + 2);
  t.deepEqual(decode(encoder.take()), [{ start: 2 ** 33, end: 2 ** 33 + 2 }]);
});

test('a page that is told about twice is told twice, for the books to find', (t) => {
  const runs = decode(writeNaiveWhiteouts([5n, 5n]));
  t.deepEqual(runs, [
    { start: 5, end: 6 },
    { start: 5, end: 6 },
  ]);
});

for (const { what, payload, count, pages, message } of [
  { what: 'an empty list', payload: Buffer.alloc(0), count: 0, message: /0 bytes for 0 pages/ },
  { what: 'no bytes for a page', payload: Buffer.alloc(0), count: 1, message: /0 bytes for 1 pages/ },
  { what: 'half a whiteout', payload: Buffer.alloc(8), count: 1, message: /8 bytes for 1 pages/ },
  { what: 'a byte after the last whiteout', payload: Buffer.alloc(10), count: 1, message: /10 bytes for 1 pages/ },
  { what: 'fewer whiteouts than announced', payload: writeNaiveWhiteouts([1n]), count: 2, message: /for 2 pages/ },
  { what: 'more whiteouts than announced', payload: writeNaiveWhiteouts([1n, 2n]), count: 1, message: /for 1 pages/ },
  {
    what: '2^32 - 1 whiteouts in nine bytes',
    payload: writeNaiveWhiteouts([1n]),
    count: 2 ** 32 - 1,
    message: /9 bytes for 4294967295 pages/,
  },
  {
    what: 'a page beyond the region',
    payload: writeNaiveWhiteouts([10n]),
    pages: 10,
    message: /beyond the region's 10/,
  },
  { what: 'a page far beyond any region', payload: writeNaiveWhiteouts([2n ** 52n - 1n]), message: /beyond/ },
  {
    what: 'an offset of 512 bytes into a page',
    payload: whiteoutsWith([3], 1, 0x32),
    message: /at 12800, which is not the start of a page/,
  },
  {
    what: 'an offset of one byte into a page',
    payload: whiteoutsWith([3], 0, 1),
    message: /at 12289, which is not the start of a page/,
  },
  {
    what: 'a page filled with ones',
    payload: whiteoutsWith([3, 4], 17, 255),
    message: /fills with 255; only 0 is known/,
  },
]) {
  test(`${what}: refused`, (t) => {
    t.throws(() => decode(payload, count, pages), { instanceOf: BallastError, code: ErrorCode.PROTOCOL, message });
  });
}

test('a whiteout costs nine bytes, as many as QEMU spends', (t) => {
  t.is(WHITEOUT_SIZE, 9);
  t.is(encode([{ start: 0, end: 1 }]).length, 9);
});
