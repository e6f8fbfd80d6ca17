import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { LEAF_PAGES, PageCoverage, popCount } from '@ballast/shared/memory';

/** Pages of one block of the coverage's map; its borders are where it could go wrong. */
const BLOCK = 32768;
/** Two whole blocks and a short one that ends within a leaf. */
const PAGES = 2 * BLOCK + 5000 + 3;

/** Pages near the borders of words, leaves and blocks, or anywhere. */
const anyPage = fc.oneof(
  fc.nat(PAGES),
  fc
    .tuple(fc.constantFrom(0, BLOCK, 2 * BLOCK, PAGES), fc.integer({ min: -70, max: 70 }))
    .map(([border, distance]) => Math.min(Math.max(border + distance, 0), PAGES)),
);

interface Step {
  /** Pages told about by this step. */
  readonly pages: readonly number[];
  readonly apply: (coverage: PageCoverage) => boolean;
}

function range(start: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, n) => start + n);
}

function runStep(start: number, end: number): Step {
  return { pages: range(start, end), apply: (coverage) => coverage.cover(start, end) };
}

function leafStep(leaf: number, mask: number): Step {
  return {
    pages: range(0, LEAF_PAGES)
      .filter((bit) => (mask & (1 << bit)) !== 0)
      .map((bit) => leaf * LEAF_PAGES + bit),
    apply: (coverage) => coverage.coverLeaf(leaf, mask),
  };
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(anyPage, anyPage).map(([start, end]) => runStep(start, end)),
  fc.tuple(anyPage, fc.integer({ min: 1, max: 200 })).map(([start, length]) => runStep(start, start + length)),
  fc
    .tuple(anyPage, fc.integer({ min: 0, max: 0xffff }))
    .map(([page, mask]) => leafStep(Math.floor(page / LEAF_PAGES), mask)),
);

testProp(
  'a page is taken once and only inside the region, as a plain bitmap would have it',
  [fc.array(anyStep, { minLength: 1, maxLength: 30 })],
  (t, steps) => {
    const coverage = new PageCoverage(PAGES);
    const model = new Uint8Array(PAGES);
    for (const { pages, apply } of steps) {
      const isFine = pages.length > 0 && pages.every((page) => model[page] === 0);
      t.is(apply(coverage), isFine);
      // What was marked is undefined after a refusal.
      if (!isFine) return;
      for (const page of pages) model[page] = 1;
      const first = model.indexOf(0);
      t.is(coverage.firstUncovered(), first === -1 ? undefined : first);
      t.is(
        coverage.covered,
        model.reduce((sum, bit) => sum + bit, 0),
      );
      t.is(coverage.complete, first === -1);
    }
  },
);

/** The region cut into pieces, in any order; some of them told leaf by leaf. */
const anyPartition = fc.array(anyPage, { maxLength: 25 }).chain((cuts) => {
  const borders = [...new Set([0, ...cuts, PAGES])].sort((a, b) => a - b);
  const pieces = borders.slice(1).map((end, index) => [borders[index] ?? 0, end] as const);
  return fc.shuffledSubarray(pieces, { minLength: pieces.length });
});

testProp(
  'pieces that make up the region cover it in any order, and nothing fits afterwards',
  [anyPartition, anyPage, fc.boolean()],
  (t, pieces, page, byLeaf) => {
    const coverage = new PageCoverage(PAGES);
    for (const [start, end] of pieces) {
      t.false(coverage.complete);
      if (byLeaf && end - start < 2000) {
        for (let leaf = Math.floor(start / LEAF_PAGES); leaf * LEAF_PAGES < end; leaf++) {
          const bits = range(0, LEAF_PAGES).filter(
            (bit) => leaf * LEAF_PAGES + bit >= start && leaf * LEAF_PAGES + bit < end,
          );
          t.true(
            coverage.coverLeaf(
              leaf,
              bits.reduce((mask, bit) => mask | (1 << bit), 0),
            ),
          );
        }
      } else {
        t.true(coverage.cover(start, end));
      }
    }
    t.true(coverage.complete);
    t.is(coverage.covered, PAGES);
    t.is(coverage.firstUncovered(), undefined);
    t.false(coverage.cover(page, page + 1));
  },
);

test('a whole block told at once cannot be told again in part', (t) => {
  const coverage = new PageCoverage(3 * BLOCK);
  t.true(coverage.cover(BLOCK, 2 * BLOCK));
  t.false(coverage.cover(2 * BLOCK - 1, 2 * BLOCK + 1));
  t.false(new PageCoverage(3 * BLOCK).cover(2 * BLOCK, 3 * BLOCK + 1));
  t.false(coverage.coverLeaf((2 * BLOCK) / LEAF_PAGES - 1, 0x8000));
});

test('a run across the border of two blocks marks both sides of it and no more', (t) => {
  const coverage = new PageCoverage(2 * BLOCK);
  t.true(coverage.cover(BLOCK - 1, BLOCK + 1));
  t.is(coverage.covered, 2);
  t.true(coverage.cover(0, BLOCK - 1));
  t.is(coverage.firstUncovered(), BLOCK + 1);
  t.true(coverage.cover(BLOCK + 1, 2 * BLOCK));
  t.true(coverage.complete);
});

test('a leaf may not name a page beyond the end of the region', (t) => {
  const coverage = new PageCoverage(LEAF_PAGES + 3);
  t.false(coverage.coverLeaf(1, 0b1000));
  t.false(coverage.coverLeaf(2, 1));
  t.true(coverage.coverLeaf(1, 0b0111));
});

test('an empty run and an empty mask are refused', (t) => {
  const coverage = new PageCoverage(100);
  t.false(coverage.cover(5, 5));
  t.false(coverage.cover(6, 5));
  t.false(coverage.cover(-1, 5));
  t.false(coverage.coverLeaf(0, 0));
});

test('a huge region told at once costs little', (t) => {
  const pages = 2 ** 34;
  const coverage = new PageCoverage(pages);
  t.true(coverage.cover(1, pages));
  t.is(coverage.firstUncovered(), 0);
  t.true(coverage.cover(0, 1));
  t.true(coverage.complete);
});

testProp('popCount counts the bits of a mask', [fc.integer({ min: 0, max: 0xffff })], (t, mask) => {
  t.is(popCount(mask), mask.toString(2).replaceAll('0', '').length);
});

test('a page in each block costs a bit for each page of the region, and no more', (t) => {
  const blocks = 1000;
  const coverage = new PageCoverage(blocks * BLOCK);
  for (let block = 0; block < blocks; block++) t.true(coverage.cover(block * BLOCK, block * BLOCK + 1));
  const bytes = coverage.blocks.reduce((sum, [, words]) => sum + (words?.byteLength ?? 0), 0);
  t.is(bytes, coverage.pages / 8);
  // Told to the end, each is next to nothing.
  for (let block = 0; block < blocks; block++) t.true(coverage.cover(block * BLOCK + 1, (block + 1) * BLOCK));
  t.true(coverage.blocks.every(([, words]) => words === undefined));
});
