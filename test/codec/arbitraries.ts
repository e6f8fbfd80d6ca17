import { fc } from '@fast-check/ava';

/** Pages of the largest region: 64 TiB. */
export const MOST_PAGES = 2 ** 34;
/** Leaves of the largest region. */
export const MOST_LEAVES = 2 ** 30;

/** An index below `limit`, often one at which a byte offset or the index itself needs another bit. */
export function anIndex(limit: number, edges: readonly number[]): fc.Arbitrary<number> {
  const near = edges.filter((edge) => edge < limit).map((edge) => fc.integer({ min: edge - 3, max: edge + 3 }));
  return fc
    .oneof(fc.integer({ min: 0, max: limit - 1 }), fc.nat(100), ...near)
    .map((index) => Math.min(Math.max(index, 0), limit - 1));
}

/** A page of some region; its offset is often near 2^31, 2^32, 2^44, or the end at 2^46. */
export const aPage: fc.Arbitrary<number> = anIndex(MOST_PAGES, [2 ** 19, 2 ** 20, 2 ** 31, 2 ** 32, MOST_PAGES - 1]);

/** A leaf of some region; its offset is often near 2^31, 2^32, 2^44, or the end at 2^46. */
export const aLeaf: fc.Arbitrary<number> = anIndex(MOST_LEAVES, [2 ** 15, 2 ** 16, 2 ** 28, MOST_LEAVES - 1]);

/** Leaves that ascend. */
export const ascendingLeaves: fc.Arbitrary<number[]> = fc
  .uniqueArray(aLeaf, { minLength: 1, maxLength: 20 })
  .map((leaves) => leaves.sort((a, b) => a - b));

/** A mask with at least one page in it. */
export const aMask: fc.Arbitrary<number> = fc.oneof(
  fc.integer({ min: 1, max: 0xffff }),
  fc.constantFrom(1, 0x8000, 0xffff),
);

export const aDigest: fc.Arbitrary<Buffer> = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => Buffer.from(bytes));

export interface Run {
  readonly start: number;
  readonly end: number;
}

/** Runs of pages that ascend and never touch. */
export const someRuns: fc.Arbitrary<Run[]> = fc
  .uniqueArray(aPage, { minLength: 2, maxLength: 60 })
  .map((pages) => pages.sort((a, b) => a - b))
  .map((bounds) => {
    const runs: Run[] = [];
    for (let at = 0; at + 1 < bounds.length; at += 2) {
      const [start, end] = bounds.slice(at, at + 2);
      if (start !== undefined && end !== undefined) runs.push({ start, end });
    }
    return runs;
  });
