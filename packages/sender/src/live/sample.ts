import { ExtentSet, LEAF_SIZE, leafCount } from '@ballast/shared/memory';

/** What part of all leaves a sample has, and how many at most: 64 MiB say enough of a guest of any size. */
const SAMPLE_SHARE = 1 / 8;
const MAX_SAMPLE_LEAVES = 1024;

/** Some leaves of a memory, which stand for all of them. */
export interface Sample {
  /** For each region, the pages to read: of each chosen leaf all that are in the scan. */
  readonly scans: readonly ExtentSet[];
  /** Leaves that were chosen, and out of how many. */
  readonly leaves: number;
  readonly outOf: number;
}

/**
 * Chooses leaves at random, but evenly over all of the scan: one out of each stretch of as many leaves.
 * @param scans for each region, whole pages
 * @param random as Math.random
 */
export function sampleOf(scans: readonly ExtentSet[], random: () => number = Math.random): Sample {
  const outOf = scans.reduce((sum, scan) => sum + leafRuns(scan).reduce((count, { leaves }) => count + leaves, 0), 0);
  const leaves = Math.min(Math.ceil(outOf * SAMPLE_SHARE), MAX_SAMPLE_LEAVES);
  /** The leaf chosen out of stretch `index`, counted over all regions. */
  const pickOf = (index: number): number => {
    const [from, to] = [Math.floor((index * outOf) / leaves), Math.floor(((index + 1) * outOf) / leaves)];
    return from + Math.floor(random() * (to - from));
  };
  let chosen = 0;
  let pick = pickOf(0);
  let passed = 0;
  return {
    scans: scans.map((scan) => {
      const picked = ExtentSet.builder();
      for (const { first, leaves: count } of leafRuns(scan)) {
        for (; chosen < leaves && pick < passed + count; pick = pickOf(chosen)) {
          const leaf = first + pick - passed;
          picked.add(leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE);
          chosen++;
        }
        passed += count;
      }
      return picked.build().intersect(scan);
    }),
    leaves,
    outOf,
  };
}

/**
 * How many leaves of all have changed at most, when `changed` of the sample have: surely enough (about 97 of 100 times)
 * for what is rare, where chance counts most.
 */
export function changedAtMost(changed: number, { leaves, outOf }: Sample): number {
  if (leaves === 0) return 0;
  // The upper bound of a Poisson distribution's mean, near enough; for none seen it is the rule of three.
  const bound = changed + 1 + 2 * Math.sqrt(changed + 1);
  return leaves === outOf ? changed : Math.min((bound / leaves) * outOf, outOf);
}

/** Runs of leaves of which at least one page is in the scan; each leaf once. */
function leafRuns(scan: ExtentSet): { first: number; leaves: number }[] {
  const runs: { first: number; leaves: number }[] = [];
  let next = 0;
  for (const { start, end } of scan) {
    const first = Math.max(next, Math.floor(start / LEAF_SIZE));
    next = leafCount(end);
    if (next > first) runs.push({ first, leaves: next - first });
  }
  return runs;
}
