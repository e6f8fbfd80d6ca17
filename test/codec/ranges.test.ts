import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { RangeEncoder, decodeRanges, type PageRun } from '@ballast/shared/protocol';
import { MOST_PAGES, aPage, someRuns } from './arbitraries.js';
import { readNaiveRanges, writeNaiveRanges, writeNaiveVarint } from './naive.js';

/** All runs of a payload. */
function decode(payload: Uint8Array, count: number, base: number, pages = MOST_PAGES): PageRun[] {
  return [...decodeRanges(Buffer.from(payload), count, base, pages)];
}

function encode(runs: readonly PageRun[]): { payload: Buffer; base: number; count: number } {
  const encoder = new RangeEncoder();
  for (const { start, end } of runs) encoder.add(start, end);
  const { base, count } = encoder;
  return { payload: encoder.take(), base, count };
}

/** Two numbers for each run, in their shortest form, whatever they say. */
function varints(...numbers: readonly (number | bigint)[]): Buffer {
  return Buffer.from(numbers.flatMap((number) => writeNaiveVarint(BigInt(number))));
}

testProp('runs of pages come back as they were', [someRuns], (t, runs) => {
  const { payload, base, count } = encode(runs);
  t.deepEqual(decode(payload, count, base), runs);
});

testProp('the fast encoder writes what the naive decoder reads', [someRuns], (t, runs) => {
  const { payload, base, count } = encode(runs);
  t.deepEqual(
    readNaiveRanges(BigInt(base), count, payload),
    runs.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) })),
  );
});

testProp('the fast encoder writes the bytes that the naive encoder writes', [someRuns], (t, runs) => {
  const { payload, base } = encode(runs);
  const naive = runs.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) }));
  t.deepEqual(payload, Buffer.from(writeNaiveRanges(BigInt(base), naive)));
});

testProp(
  'the fast decoder reads what the naive encoder writes, from any base before the first run',
  [someRuns, aPage],
  (t, runs, page) => {
    const base = Math.min(page, runs[0]?.start ?? 0);
    const naive = runs.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) }));
    t.deepEqual(decode(writeNaiveRanges(BigInt(base), naive), runs.length, base), runs);
  },
);

testProp('an encoder that was emptied begins anew', [someRuns, someRuns], (t, first, second) => {
  const encoder = new RangeEncoder();
  for (const { start, end } of first) encoder.add(start, end);
  encoder.take();
  t.is(encoder.count, 0);
  for (const { start, end } of second) encoder.add(start, end);
  const { base, count } = encoder;
  t.deepEqual({ payload: encoder.take(), base, count }, encode(second));
});

testProp(
  'whatever bytes come, runs inside the region are returned or the peer is blamed',
  [fc.uint8Array({ maxLength: 64 }), fc.nat(40), aPage, aPage],
  (t, payload, count, base, pages) => {
    try {
      let previous = base;
      t.pass();
      for (const { start, end } of decode(payload, count, base, pages)) {
        t.true(start >= previous && end > start && end <= pages);
        previous = end;
      }
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

test('a frame full of the shortest runs holds 32761 of them or more', (t) => {
  const encoder = new RangeEncoder();
  for (let page = 0; encoder.hasRoom; page += 2) encoder.add(page, page + 1);
  const { count } = encoder;
  const payload = encoder.take();
  t.true(count >= 32_761 && payload.length <= 65536);
  t.is(decode(payload, count, 0).length, count);
});

test('a run may reach the last page of the largest region', (t) => {
  t.deepEqual(decode(varints(0, MOST_PAGES), 1, 0), [{ start: 0, end: MOST_PAGES }]);
});

for (const { what, payload, count, base, pages, message } of [
  { what: 'runs that touch', payload: varints(0, 5, 0, 1), count: 2, message: /split one run into two/ },
  { what: 'an empty run', payload: varints(3, 0), count: 1, message: /empty run/ },
  { what: 'an empty run after a good one', payload: varints(3, 1, 4, 0), count: 2, message: /empty run/ },
  {
    what: 'a run that ends a page beyond the region',
    payload: varints(0, 11),
    count: 1,
    pages: 10,
    message: /end at page 11, beyond the region's 10 pages/,
  },
  { what: 'a run that begins beyond the region', payload: varints(10, 1), count: 1, pages: 10, message: /beyond/ },
  { what: 'a base beyond the region', payload: varints(0, 1), count: 1, base: 10, pages: 10, message: /beyond/ },
  {
    what: 'a base and a gap that are exact only apart',
    payload: varints(2 ** 53 - 1, 1),
    count: 1,
    base: 2 ** 53 - 1,
    message: /beyond/,
  },
  {
    what: 'a gap of 2^53',
    payload: varints(2n ** 53n, 1),
    count: 1,
    message: /number beyond 2\^53/,
  },
  {
    what: 'a length of 2^56 - 1',
    payload: varints(0, 2n ** 56n - 1n),
    count: 1,
    message: /number beyond 2\^53/,
  },
  {
    what: 'a number of nine bytes',
    payload: varints(0, 2n ** 56n),
    count: 1,
    message: /more than 8 bytes/,
  },
  {
    what: 'a number that never ends',
    payload: Buffer.alloc(65536, 0xff),
    count: 1,
    message: /more than 8 bytes/,
  },
  {
    what: 'a zero in two bytes',
    payload: Buffer.of(0x80, 0x00, 0x01),
    count: 1,
    message: /longer than needed/,
  },
  {
    what: 'a length in one byte more than it needs',
    payload: Buffer.of(0x00, 0x81, 0x80, 0x00),
    count: 1,
    message: /longer than needed/,
  },
  { what: 'no bytes for a run', payload: Buffer.alloc(0), count: 1, message: /middle of a number/ },
  { what: 'a run without its length', payload: varints(1), count: 1, message: /middle of a number/ },
  { what: 'half a number', payload: Buffer.of(0x00, 0x80), count: 1, message: /middle of a number/ },
  { what: 'fewer runs than announced', payload: varints(0, 1), count: 2, message: /middle of a number/ },
  { what: 'more runs than announced', payload: varints(0, 1, 1, 1), count: 1, message: /after the last run/ },
  { what: 'a byte after the last run', payload: varints(0, 1, 0), count: 1, message: /after the last run/ },
  { what: 'bytes where no run was announced', payload: varints(0, 1), count: 0, message: /after the last run/ },
  { what: '2^32 - 1 runs in two bytes', payload: varints(0, 1), count: 2 ** 32 - 1, message: /middle of a number/ },
]) {
  test(`${what}: refused`, (t) => {
    t.throws(() => decode(payload, count, base ?? 0, pages), {
      instanceOf: BallastError,
      code: ErrorCode.PROTOCOL,
      message,
    });
  });
}

test('the first run of a frame may touch its base', (t) => {
  t.deepEqual(decode(varints(0, 1), 1, 7), [{ start: 7, end: 8 }]);
});
