import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { ExtentSet } from '@ballast/shared/memory';

/** Bytes that the sets of these tests lie in; small, so that runs meet often. */
const SPACE = 96;

/** The model: element n says whether byte n is in the set. */
type Model = readonly boolean[];

function modelOf(runs: readonly (readonly [number, number])[]): Model {
  return Array.from({ length: SPACE }, (_, byte) => runs.some(([start, end]) => start <= byte && byte < end));
}

function toModel(set: ExtentSet): Model {
  return modelOf([...set].map(({ start, end }) => [start, end] as const));
}

function setOf(model: Model): ExtentSet {
  return ExtentSet.of(model.flatMap((isIn, byte) => (isIn ? [[byte, byte + 1] as const] : [])));
}

function isNormal(set: ExtentSet): boolean {
  const runs = [...set];
  return runs.every(({ start, end }, index) => start < end && start > (runs[index - 1]?.end ?? -1));
}

const offset = fc.nat(SPACE);
const anyRuns = fc.array(fc.tuple(offset, offset), { maxLength: 12 });
const anySet = anyRuns.map((runs) => ExtentSet.of(runs));
const anyUnit = fc.constantFrom(1, 2, 3, 4, 8, 16, 50, 200);

testProp('runs in any order, overlapping and empty ones among them, become their union', [anyRuns], (t, runs) => {
  const set = ExtentSet.of(runs);
  t.true(isNormal(set));
  t.deepEqual(toModel(set), modelOf(runs));
});

testProp('bytes given one by one become the fewest runs', [anyRuns], (t, runs) => {
  const model = modelOf(runs);
  const set = setOf(model);
  t.true(isNormal(set));
  t.deepEqual(toModel(set), model);
  t.is(set.count, model.filter((isIn, byte) => isIn && model[byte - 1] !== true).length);
});

testProp('a builder joins runs that come by ascending start', [anyRuns], (t, runs) => {
  const builder = ExtentSet.builder();
  for (const [start, end] of [...runs].sort(([a], [b]) => a - b)) builder.add(start, end);
  const set = builder.build();
  t.true(isNormal(set));
  t.true(set.equals(ExtentSet.of(runs)));
});

testProp('union has what is in either', [anySet, anySet], (t, a, b) => {
  const inB = toModel(b);
  const union = a.union(b);
  t.true(isNormal(union));
  t.deepEqual(
    toModel(union),
    toModel(a).map((isIn, byte) => isIn || inB[byte] === true),
  );
});

testProp('intersect has what is in both', [anySet, anySet], (t, a, b) => {
  const inB = toModel(b);
  const both = a.intersect(b);
  t.true(isNormal(both));
  t.deepEqual(
    toModel(both),
    toModel(a).map((isIn, byte) => isIn && inB[byte] === true),
  );
});

testProp('subtract leaves what is in this and not in the other', [anySet, anySet], (t, a, b) => {
  const inB = toModel(b);
  const rest = a.subtract(b);
  t.true(isNormal(rest));
  t.deepEqual(
    toModel(rest),
    toModel(a).map((isIn, byte) => isIn && inB[byte] !== true),
  );
});

testProp('complement has the rest of the memory, and nothing beyond its end', [anySet, offset], (t, set, bytes) => {
  const rest = set.complement(bytes);
  t.true(isNormal(rest));
  t.deepEqual(
    toModel(rest),
    toModel(set).map((isIn, byte) => byte < bytes && !isIn),
  );
});

testProp('slice has the part between two offsets', [anySet, offset, offset], (t, set, start, end) => {
  const part = set.slice(start, end);
  t.true(isNormal(part));
  t.deepEqual(
    toModel(part),
    toModel(set).map((isIn, byte) => isIn && start <= byte && byte < end),
  );
});

testProp('alignInward has the units that are in the set whole', [anySet, anyUnit], (t, set, unit) => {
  const aligned = set.alignInward(unit);
  t.true(isNormal(aligned));
  // Beyond the space nothing is in any set, so that a unit that crosses its end is never whole.
  const model = toModel(set);
  const isWhole = (byte: number): boolean => {
    const first = Math.floor(byte / unit) * unit;
    return Array.from({ length: unit }, (_, n) => model[first + n] === true).every(Boolean);
  };
  t.deepEqual(
    toModel(aligned),
    model.map((_, byte) => isWhole(byte)),
  );
});

testProp(
  'alignOutward has each unit of which anything is in the set, up to the limit',
  [anySet, anyUnit, offset],
  (t, set, unit, limit) => {
    const aligned = set.alignOutward(unit, limit);
    t.true(isNormal(aligned));
    const model = toModel(set);
    const isTouched = (byte: number): boolean => {
      const first = Math.floor(byte / unit) * unit;
      return model.slice(first, first + unit).some(Boolean);
    };
    t.deepEqual(
      toModel(aligned),
      model.map((_, byte) => byte < limit && isTouched(byte)),
    );
  },
);

testProp('contains answers for every byte', [anySet], (t, set) => {
  t.deepEqual(
    Array.from({ length: SPACE }, (_, byte) => set.contains(byte)),
    [...toModel(set)],
  );
  t.false(set.contains(SPACE));
});

testProp('indexAfter finds the first run that ends after an offset', [anySet, offset], (t, set, at) => {
  const expected = [...set].findIndex(({ end }) => end > at);
  t.is(set.indexAfter(at), expected === -1 ? set.count : expected);
});

testProp('bytes counts each byte once', [anyRuns], (t, runs) => {
  t.is(ExtentSet.of(runs).bytes, modelOf(runs).filter(Boolean).length);
});

testProp('sets are equal exactly when they have the same bytes', [anySet, anySet], (t, a, b) => {
  const inB = toModel(b);
  t.is(
    a.equals(b),
    toModel(a).every((isIn, byte) => isIn === inB[byte]),
  );
  t.true(a.equals(setOf(toModel(a))));
});

testProp('operations leave their operands as they were', [anyRuns, anyRuns], (t, some, others) => {
  const [a, b] = [ExtentSet.of(some), ExtentSet.of(others)];
  a.union(b);
  a.intersect(b);
  a.subtract(b);
  a.complement(SPACE);
  a.alignInward(8);
  a.alignOutward(8, SPACE);
  t.deepEqual([toModel(a), toModel(b)], [modelOf(some), modelOf(others)]);
});

testProp(
  'offsets stay exact up to the largest memory',
  [fc.array(fc.tuple(fc.nat(2 ** 24), fc.integer({ min: 1, max: 1000 })), { maxLength: 20 })],
  (t, pages) => {
    const top = 2 ** 46;
    const low = ExtentSet.of(pages.map(([page, length]) => [page * 4096 + 1, (page + length) * 4096 - 1]));
    const high = ExtentSet.of(pages.map(([page, length]) => [top + page * 4096 + 1, top + (page + length) * 4096 - 1]));
    const moved = [...low.alignInward(4096)].map(({ start, end }) => [top + start, top + end] as const);
    t.true(high.alignInward(4096).equals(ExtentSet.of(moved)));
    t.is(high.bytes, low.bytes);
  },
);

test('runs that touch become one', (t) => {
  t.deepEqual(
    [
      ...ExtentSet.of([
        [8, 12],
        [0, 4],
        [4, 8],
      ]),
    ],
    [{ start: 0, end: 12 }],
  );
});

test('the empty set has no runs, no bytes and no bounds', (t) => {
  t.is(ExtentSet.empty.count, 0);
  t.is(ExtentSet.empty.bytes, 0);
  t.deepEqual([...ExtentSet.empty], []);
  t.throws(() => ExtentSet.empty.start(0), { instanceOf: RangeError });
});

test('whole is one run, or none where there is no memory', (t) => {
  t.deepEqual([...ExtentSet.whole(4096)], [{ start: 0, end: 4096 }]);
  t.is(ExtentSet.whole(0).count, 0);
});

test('a builder refuses a run that starts before the last one', (t) => {
  const builder = ExtentSet.builder().add(4096, 8192);
  t.throws(() => builder.add(0, 4096), { instanceOf: RangeError, message: /in order/ });
});

test('a builder takes a hundred thousand runs', (t) => {
  const builder = ExtentSet.builder();
  for (let run = 0; run < 100_000; run++) builder.add(run * 8192, run * 8192 + 4096);
  const set = builder.build();
  t.is(set.count, 100_000);
  t.is(set.bytes, 100_000 * 4096);
  t.is(set.indexAfter(8192 * 50_000), 50_000);
});
