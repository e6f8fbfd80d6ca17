import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { LEAF_PAGES, PageCoverage, popCount } from '@ballast/shared/memory';
import { HEADER_SIZE, RangeEncoder } from '@ballast/shared/protocol';

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

/** What is kept for marks, in bytes: the numbers of lists, the words of bits, the table of blocks. */
function keptNumbers(coverage: PageCoverage): { table: number; parts: number } {
  const { blocks } = coverage.packed();
  const words = [...blocks].map((entry) => Math.max(0, -entry));
  const bytes = words.map((count) => count * (count === BLOCK / 32 ? 4 : 8));
  return { table: blocks.byteLength, parts: bytes.reduce((sum, size) => sum + size, 0) };
}

/** Steps that come close to each other in few blocks: lists fill up, become bits, and whole blocks again. */
const crowdedStep: fc.Arbitrary<Step> = fc.oneof(
  fc
    .tuple(fc.nat(2), fc.nat(BLOCK / 64 - 1), fc.integer({ min: 1, max: 3 }))
    .map(([block, n, length]) => runStep(block * BLOCK + n * 64, block * BLOCK + n * 64 + length)),
  fc
    .tuple(fc.nat(Math.floor(PAGES / LEAF_PAGES)), fc.integer({ min: 1, max: 0xffff }))
    .map(([leaf, mask]) => leafStep(leaf, mask)),
);

testProp(
  'what channels were told, in runs, lists and bits, is put together as a plain bitmap would have it',
  [
    fc.array(fc.tuple(fc.nat(2), fc.oneof(anyStep, crowdedStep)), { maxLength: 60 }),
    // Blocks in which many pages were told apart, of which channel: their marks are bits.
    fc.array(fc.tuple(fc.nat(2), fc.nat(2), fc.integer({ min: 200, max: 300 })), { maxLength: 3 }),
    fc.boolean(),
  ],
  (t, steps, crowds, mayOverlap) => {
    const channels = [new PageCoverage(PAGES), new PageCoverage(PAGES), new PageCoverage(PAGES)] as const;
    const models = [new Uint8Array(PAGES), new Uint8Array(PAGES), new Uint8Array(PAGES)] as const;
    const isFree = (page: number, channel: number): boolean =>
      page < PAGES && models.every((model, index) => (mayOverlap && index !== channel) || model[page] === 0);
    const all = [
      ...crowds.flatMap(([channel, block, count]) =>
        range(0, count).map((n) => [channel, runStep(block * BLOCK + n * 10, block * BLOCK + n * 10 + 2)] as const),
      ),
      ...steps,
    ];
    for (const [index, { pages, apply }] of all) {
      const channel = channels[index];
      const model = models[index];
      if (channel === undefined || model === undefined || pages.length === 0) continue;
      if (!pages.every((page) => isFree(page, index))) continue;
      t.true(apply(channel));
      for (const page of pages) model[page] = 1;
    }
    const whole = new PageCoverage(PAGES);
    const told = new Uint8Array(PAGES);
    for (const [index, channel] of channels.entries()) {
      const model = models[index] ?? told;
      const isFine = model.every((bit, page) => bit === 0 || told[page] === 0);
      t.is(whole.merge(channel.packed()), isFine);
      if (!isFine) return;
      for (const [page, bit] of model.entries()) if (bit === 1) told[page] = 1;
      t.is(
        whole.covered,
        told.reduce((sum, bit) => sum + bit, 0),
      );
      const first = told.indexOf(0);
      t.is(whole.firstUncovered(), first === -1 ? undefined : first);
    }
    // Each page by itself: what is marked is refused, what is not is taken.
    for (let page = 0; page < PAGES; page += 1 + (page % 7)) t.is(whole.cover(page, page + 1), told[page] === 0);
  },
);

test('pages told apart, in any order and until all are told, are whole blocks again and cost nothing', (t) => {
  const coverage = new PageCoverage(3 * BLOCK);
  // 8191 is odd, so that each page comes once, and hardly ever beside the one before.
  for (let n = 0; n < BLOCK; n++) {
    const page = (n * 8191) % BLOCK;
    t.true(coverage.cover(page, page + 1));
    t.false(coverage.cover(page, page + 1));
    t.true(coverage.cover(2 * BLOCK + n, 2 * BLOCK + n + 1));
  }
  t.is(coverage.firstUncovered(), BLOCK);
  t.true(coverage.cover(BLOCK, 2 * BLOCK));
  t.true(coverage.complete);
  t.deepEqual(keptNumbers(coverage), { table: 12, parts: 0 });
});

/** Tells of every other page at the beginning of each block, as many as are given, and compares memory with traffic. */
const costsLittle = test.macro((t, pagesOfBlock: number) => {
  const blocks = 2048;
  const coverage = new PageCoverage(blocks * BLOCK);
  const encoder = new RangeEncoder();
  let traffic = 0;
  const collect = garbageCollector();
  const before = memoryInUse(collect);
  for (let block = 0; block < blocks; block++) {
    for (let n = 0; n < pagesOfBlock; n++) {
      const page = block * BLOCK + 2 * n + 1;
      if (!coverage.cover(page, page + 1)) t.fail(`page ${page}`);
      encoder.add(page, page + 1);
      if (!encoder.hasRoom) traffic += HEADER_SIZE + encoder.take().length;
    }
  }
  traffic += HEADER_SIZE + encoder.take().length;
  const kept = keptNumbers(coverage);
  t.is(kept.table, 4 * blocks);
  t.true(kept.parts <= 9 * traffic, `${kept.parts} bytes of marks for ${traffic} of traffic`);
  // With all that V8 needs around them; a MiB is what the measuring itself may be wrong by.
  const grown = memoryInUse(collect) - before;
  t.true(grown <= 24 * traffic + 2 ** 20, `${grown} bytes of memory for ${traffic} of traffic`);
  t.is(coverage.covered, blocks * pagesOfBlock);
});

test('a page in each block costs no more than the traffic that tells of it', costsLittle, 1);
test('two pages in each block cost a few times the traffic that tells of them', costsLittle, 2);
test('nine pages in each block cost a few times the traffic that tells of them', costsLittle, 9);
test('more pages in each block than a list holds cost a few times the traffic that tells of them', costsLittle, 257);

test('a region of 64 TiB takes 2 MiB, whatever few runs tell of it', (t) => {
  const coverage = new PageCoverage(2 ** 34);
  t.true(coverage.cover(1, 2 ** 34 - 1));
  const { table, parts } = keptNumbers(coverage);
  t.is(table, 2 * 2 ** 20);
  t.is(parts, 0);
});

/** Collects all garbage, which otherwise happens when V8 likes. */
function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

function memoryInUse(collect: () => void): number {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
