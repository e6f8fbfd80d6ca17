import { fc, testProp } from '@fast-check/ava';
import { LeafReader } from '@ballast/sender/leaf-reader';
import { ExtentSet, MAX_REGION_BYTES } from '@ballast/shared/memory';

const PAGE = 4096;
const LEAF_PAGES = 16;
/** Pages that one example looks at, from its first one on. */
const SPAN = 300;

/** Where offsets outgrow 31 and 32 bits, where page numbers do, and where the largest region ends. */
const firstPages = fc.oneof(
  fc.nat(1000),
  fc.constantFrom(2 ** 19 - 150, 2 ** 20 - 150, 2 ** 31 - 150, 2 ** 32 - 150, MAX_REGION_BYTES / PAGE - SPAN),
);
const somePages = fc.array(fc.tuple(fc.nat(SPAN - 1), fc.integer({ min: 1, max: 60 })), { maxLength: 8 });

/** A third of all pages are zeros. */
function holdsSomething(page: number): boolean {
  return page % 3 !== 0;
}

testProp(
  'each page is read once, from where it is, and told of with its leaf',
  [firstPages, somePages, fc.integer({ min: 1, max: 16 }), fc.boolean()],
  (t, first, runs, maxLeaves, looksInPlace) => {
    const scan = ExtentSet.of(
      runs.map(([start, pages]) => [(first + start) * PAGE, (first + Math.min(start + pages, SPAN)) * PAGE] as const),
    );
    const wanted = Array.from({ length: SPAN }, (_, n) => first + n).filter((page) => scan.contains(page * PAGE));
    const read: number[] = [];
    const zeros: number[] = [];
    const pagesIn = (offset: number, length: number): number[] =>
      Array.from({ length: length / PAGE }, (_, n) => offset / PAGE + n);
    const reader = new LeafReader(
      {
        read(into, offset) {
          for (const [n, page] of pagesIn(offset, into.length).entries()) {
            read.push(page);
            into.fill(0, n * PAGE, (n + 1) * PAGE);
            if (holdsSomething(page)) into.writeDoubleLE(page, n * PAGE + 16);
          }
        },
        ...(looksInPlace && {
          isZero(offset: number, length: number) {
            const pages = pagesIn(offset, length);
            if (pages.some(holdsSomething)) return false;
            zeros.push(...pages);
            return true;
          },
        }),
      },
      scan,
    );

    const memory = Buffer.alloc(LEAF_PAGES * LEAF_PAGES * PAGE, 0xff);
    const scanned: number[] = [];
    while (!reader.done) {
      const leaves = reader.readStretch(memory, 0, maxLeaves);
      t.true(leaves.length > 0 && leaves.length <= maxLeaves);
      for (const { leaf, scanned: bits, mask, at, keep } of leaves) {
        const pages = Array.from({ length: LEAF_PAGES }, (_, n) => n).filter((n) => (bits & (1 << n)) !== 0);
        scanned.push(...pages.map((n) => leaf * LEAF_PAGES + n));
        const held = pages.filter((n) => holdsSomething(leaf * LEAF_PAGES + n));
        t.is(
          mask,
          held.reduce((sum, n) => sum | (1 << n), 0),
        );
        const kept = Array.from({ length: LEAF_PAGES }, (_, n) => n).filter((n) => (keep & (1 << n)) !== 0);
        t.deepEqual(
          kept.map((n) => memory.readDoubleLE(at + n * PAGE + 16)),
          held.map((n) => leaf * LEAF_PAGES + n),
        );
      }
    }
    t.deepEqual(scanned, wanted);
    t.deepEqual(
      [...read, ...zeros].sort((a, b) => a - b),
      wanted,
    );
  },
);
