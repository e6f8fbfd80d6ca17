import { fc, testProp } from '@fast-check/ava';
import { changedAtMost, sampleOf } from '@ballast/sender/sample';
import { ExtentSet, LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';
import test from 'ava';

/** Runs of pages in some regions of up to 1000 leaves. */
const anyScans = fc.array(
  fc
    .array(fc.tuple(fc.nat({ max: 16_000 }), fc.integer({ min: 1, max: 200 })), { maxLength: 20 })
    .map((runs) => ExtentSet.of(runs.map(([page, pages]) => [page * PAGE_SIZE, (page + pages) * PAGE_SIZE]))),
  { minLength: 1, maxLength: 3 },
);
/** A source of chance: the given numbers over and over. */
const anyChance = fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 1 });

function repeating(numbers: readonly number[]): () => number {
  let next = 0;
  return () => numbers[next++ % numbers.length] ?? 0;
}

function leavesIn(scan: ExtentSet): Set<number> {
  const leaves = new Set<number>();
  for (const { start, end } of scan)
    for (let leaf = Math.floor(start / LEAF_SIZE); leaf * LEAF_SIZE < end; leaf++) leaves.add(leaf);
  return leaves;
}

testProp('a sample has whole leaves of the scan, and as many as it says', [anyScans, anyChance], (t, scans, chance) => {
  const sample = sampleOf(scans, repeating(chance));
  t.is(sample.scans.length, scans.length);
  let leaves = 0;
  for (const [index, scan] of scans.entries()) {
    const chosen = leavesIn(sample.scans[index] ?? ExtentSet.empty);
    const whole = ExtentSet.of([...chosen].map((leaf) => [leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE]));
    t.true((sample.scans[index] ?? ExtentSet.empty).equals(whole.intersect(scan)));
    leaves += chosen.size;
  }
  t.is(leaves, sample.leaves);
  t.is(
    sample.outOf,
    scans.reduce((sum, scan) => sum + leavesIn(scan).size, 0),
  );
  t.true(sample.outOf === 0 || sample.leaves > 0);
});

testProp('every leaf may be chosen', [anyScans.filter((scans) => scans.some(({ count }) => count > 0))], (t, scans) => {
  const all = scans.map((scan) => leavesIn(scan));
  // Chance that runs through all of its values.
  for (let part = 0; part < 1; part += 1 / 64)
    for (const [index, scan] of sampleOf(scans, () => part).scans.entries())
      for (const leaf of leavesIn(scan)) all[index]?.delete(leaf);
  t.true(all.every((left) => left.size === 0));
});

test('a sample of a huge memory is small', (t) => {
  const { leaves, outOf, scans } = sampleOf([ExtentSet.whole(2 ** 40)]);
  t.is(outOf, 2 ** 40 / LEAF_SIZE);
  t.is(leaves, 1024);
  t.is(scans[0]?.bytes, 1024 * LEAF_SIZE);
});

test('a memory without anything in it has no sample, and nothing of it has changed', (t) => {
  const sample = sampleOf([ExtentSet.empty]);
  t.like(sample, { leaves: 0, outOf: 0 });
  t.is(changedAtMost(0, sample), 0);
});

test('what a sample stands for is told with a margin, above all where nothing was seen', (t) => {
  const sample = { scans: [], leaves: 1000, outOf: 8000 };
  t.is(changedAtMost(0, sample), 24, 'the rule of three');
  t.true(changedAtMost(10, sample) > 80 && changedAtMost(10, sample) < 160);
  t.true(changedAtMost(500, sample) > 4000 && changedAtMost(500, sample) < 4500);
  t.is(changedAtMost(1000, sample), 8000, 'never more than all');
});

test('the margin is seldom too small', (t) => {
  // A memory of which 1 % has changed, looked at ten thousand times.
  const [leaves, outOf, changed] = [400, 3200, 32];
  let random = 1;
  const next = (): number => (random = (random * 48271) % 2147483647) / 2147483647;
  let tooSmall = 0;
  for (let trial = 0; trial < 10_000; trial++) {
    let seen = 0;
    for (let leaf = 0; leaf < leaves; leaf++) if (next() < changed / outOf) seen++;
    if (changedAtMost(seen, { scans: [], leaves, outOf }) < changed) tooSmall++;
  }
  t.true(tooSmall < 300, `${tooSmall} of 10000`);
});
