import { fc } from '@fast-check/ava';
import test from 'ava';
import { ExtentSet, LEAF_SIZE, PAGE_SIZE, leafCount } from '@ballast/shared/memory';
import { Stretches } from '@ballast/sender/stretches';

const STRETCH_BYTES = 8 << 20;

const regions = fc.array(
  fc.record({
    pages: fc.integer({ min: 1, max: 60_000 }),
    runs: fc.array(
      fc.tuple(fc.nat(60_000), fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9000 }))),
    ),
  }),
  { minLength: 1, maxLength: 3 },
);

test('each leaf is in exactly one stretch, and all that is to be scanned is scanned', (t) => {
  fc.assert(
    fc.property(regions, (plan) => {
      const scans = plan.map(({ pages, runs }) =>
        ExtentSet.of(
          runs.map(([start, length]) => [
            Math.min(start, pages) * PAGE_SIZE,
            Math.min(start + length, pages) * PAGE_SIZE,
          ]),
        ),
      );
      const bytes = plan.map(({ pages }) => pages * PAGE_SIZE);
      const cut = Stretches.of(
        Stretches.cut(
          scans.map((scan, region) => ({ scan, free: scan.complement(bytes[region] ?? 0) })),
          bytes,
        ).shared,
      );
      let index = 0;
      for (const [region, scan] of scans.entries()) {
        let leaf = 0;
        let scanned = ExtentSet.empty;
        while (leaf < leafCount(bytes[region] ?? 0)) {
          const stretch = cut.at(index++);
          if (stretch === undefined) throw new Error('the stretches end before the memory');
          t.is(stretch.region, region);
          t.is(stretch.regionBytes, bytes[region] ?? 0);
          t.is(stretch.first, leaf);
          t.true(stretch.end > leaf);
          // A leaf more than asked for, where the last one could not be cut.
          t.true(stretch.scan.bytes <= STRETCH_BYTES + LEAF_SIZE, `${stretch.scan.bytes} bytes in one stretch`);
          leaf = stretch.end;
          scanned = scanned.union(stretch.scan);
        }
        t.is(leaf, leafCount(bytes[region] ?? 0));
        t.true(scanned.equals(scan));
      }
      t.is(cut.at(index), undefined);
    }),
    { numRuns: 200 },
  );
});
