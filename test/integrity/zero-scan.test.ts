import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { isZero, nonZeroMask } from '@ballast/shared/integrity';
import { LEAF_PAGES, LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';

/** The model: looks at every byte. */
function naiveMask(bytes: Buffer, start: number, pages: number): number {
  let mask = 0;
  for (let at = start; at < start + pages * PAGE_SIZE; at++) {
    if (bytes[at] !== 0) mask |= 1 << Math.floor((at - start) / PAGE_SIZE);
  }
  return mask;
}

/** Offsets within a leaf, those where pages meet among them. */
const anyOffset = fc.oneof(
  fc.nat(LEAF_SIZE - 1),
  fc
    .tuple(fc.nat(LEAF_PAGES - 1), fc.constantFrom(0, 1, 7, 8, 9, PAGE_SIZE - 1))
    .map(([page, within]) => page * PAGE_SIZE + within),
);
const anyByte = fc.integer({ min: 1, max: 255 });

testProp(
  'a single byte that is not zero, wherever it is, marks its page and no other',
  [anyOffset, anyByte],
  (t, at, byte) => {
    const leaf = Buffer.alloc(LEAF_SIZE);
    leaf[at] = byte;
    t.is(nonZeroMask(leaf, 0, LEAF_PAGES), 1 << Math.floor(at / PAGE_SIZE));
  },
);

test('the first and the last byte of every page are looked at', (t) => {
  for (let page = 0; page < LEAF_PAGES; page++) {
    for (const at of [page * PAGE_SIZE, (page + 1) * PAGE_SIZE - 1]) {
      const leaf = Buffer.alloc(LEAF_SIZE);
      leaf[at] = 1;
      t.is(nonZeroMask(leaf, 0, LEAF_PAGES), 1 << page);
    }
  }
});

testProp(
  'the mask is that of a naive scan, in whatever part of a buffer',
  [
    fc.array(fc.tuple(anyOffset, anyByte), { maxLength: 20 }),
    fc.integer({ min: 1, max: LEAF_PAGES }),
    fc.oneof(fc.constant(0), fc.constant(PAGE_SIZE), fc.nat(LEAF_SIZE)),
  ],
  (t, touched, pages, start) => {
    const bytes = Buffer.alloc(2 * LEAF_SIZE);
    for (const [at, byte] of touched) bytes[start + at] = byte;
    t.is(nonZeroMask(bytes, start, pages), naiveMask(bytes, start, pages));
  },
  { numRuns: 60 },
);

testProp('bytes around the scanned pages do not count', [fc.integer({ min: 1, max: LEAF_PAGES })], (t, pages) => {
  const start = 3 * PAGE_SIZE;
  const bytes = Buffer.alloc(start + (pages + 1) * PAGE_SIZE, 0xff);
  bytes.fill(0, start, start + pages * PAGE_SIZE);
  t.is(nonZeroMask(bytes, start, pages), 0);
});

test('a leaf full of data has all of its pages', (t) => {
  t.is(nonZeroMask(Buffer.alloc(LEAF_SIZE, 1), 0, LEAF_PAGES), 0xffff);
});

testProp('isZero sees exactly its range', [fc.nat(LEAF_SIZE), fc.nat(LEAF_SIZE), anyOffset], (t, one, other, at) => {
  const [start, end] = [Math.min(one, other), Math.max(one, other)];
  const bytes = Buffer.alloc(LEAF_SIZE);
  bytes[at] = 0x80;
  t.is(isZero(bytes, start, end), at < start || at >= end);
});
