import { mkdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { PAGE_SIZE, readBalloonJson, type ExtentSet } from '@ballast/shared/memory';
import { scratchFile, scratchFolder } from './scratch.js';

const MEMORY_PAGES = 256;
const MEMORY_BYTES = MEMORY_PAGES * PAGE_SIZE;

interface QemuEntry {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
}

function qemuEntry(start: number, length: number, zero: boolean): QemuEntry & Record<string, unknown> {
  return { start, length, depth: 0, present: true, zero, data: !zero, offset: start };
}

function nbdEntry(offset: number, length: number, type: number): Record<string, unknown> {
  return { offset, length, type, description: ['data', 'hole', 'zero', 'hole,zero'][type] };
}

function readMap(t: ExecutionContext, entries: unknown, memoryBytes = MEMORY_BYTES): ExtentSet {
  return readBalloonJson(scratchFile(t, JSON.stringify(entries)), memoryBytes);
}

/** [first page, page after the last] of each run. */
function pageRuns(set: ExtentSet): [number, number][] {
  return [...set].map(({ start, end }) => [start / PAGE_SIZE, end / PAGE_SIZE]);
}

/** Output of a real tool: qemu-img 7.2.22, nbdinfo 1.14.2 on nbdkit. */
function fixture(name: string): string {
  return fileURLToPath(new URL(`../../memory/fixtures/${name}.out`, import.meta.url));
}

/** The free pages of the sparse file that the fixtures are about: 1 MiB on tmpfs, data in pages 0, 17, 20-22, 40, 100, 255. */
const FIXTURE_FREE = [
  [1, 17],
  [18, 20],
  [23, 40],
  [41, 100],
  [101, 255],
];

test('`qemu-img map --output=json` of a sparse file is read', (t) => {
  t.deepEqual(pageRuns(readBalloonJson(fixture('qemu-img-map'), MEMORY_BYTES)), FIXTURE_FREE);
});

test('`nbdinfo --map --json` of the same file says the same', (t) => {
  t.deepEqual(pageRuns(readBalloonJson(fixture('nbdinfo-map'), MEMORY_BYTES)), FIXTURE_FREE);
});

test('what qemu-img shows of an overlay with a backing file is free where `zero` is true, whatever `data` and `present` say', (t) => {
  t.deepEqual(pageRuns(readBalloonJson(fixture('qemu-img-map-overlay'), MEMORY_BYTES)), [
    [0, 16],
    [32, 128],
    [129, 256],
  ]);
});

/** Asserts that a map is refused as such, in one line that has all of `words`. */
function refuses(t: ExecutionContext, path: string, words: readonly string[], memoryBytes = MEMORY_BYTES): void {
  const error = t.throws(() => readBalloonJson(path, memoryBytes), { instanceOf: BallastError });
  t.is(error.code, ErrorCode.BALLOON_MAP);
  for (const word of [path, ...words]) t.true(error.message.includes(word), `no “${word}” in: ${error.message}`);
  t.false(error.message.includes('\n'));
}

function refusesEntries(t: ExecutionContext, entries: unknown, words: readonly string[]): void {
  refuses(t, scratchFile(t, JSON.stringify(entries)), words);
}

test('`nbdinfo --map --totals --json` is refused, as it does not say where', (t) => {
  refuses(t, fixture('nbdinfo-totals'), ['entry 0', '--totals', 'not where']);
});

test('a map of the allocation depth is refused: its 2 is no bit for zeros', (t) => {
  refuses(t, fixture('nbdinfo-allocation-depth'), ['entry 0', 'base:allocation']);
});

test('`nbdinfo --map` without --json is refused, and --json asked for', (t) => {
  refuses(t, fixture('nbdinfo-map-plain'), ['not JSON', '--json']);
});

test('`nbdinfo --json` without --map is refused, and --map asked for', (t) => {
  refuses(t, fixture('nbdinfo-export'), ['no array', '--map']);
});

test('only bit 1 of `type` makes an entry free', (t) => {
  const types = [0, 1, 2, 3, 4, 6, 2 ** 33, 2 ** 33 + 2];
  const entries = types.map((type, page) => ({ offset: page * 2 * PAGE_SIZE, length: PAGE_SIZE, type }));
  t.deepEqual(
    pageRuns(readMap(t, entries)).map(([page]) => types[page / 2]),
    [2, 3, 6, 2 ** 33 + 2],
  );
});

test('an entry with `start` is of qemu-img, though it has an `offset` into the image too', (t) => {
  const entry = { ...qemuEntry(4 * PAGE_SIZE, PAGE_SIZE, true), offset: 9 * PAGE_SIZE, type: 0 };
  t.deepEqual(pageRuns(readMap(t, [entry])), [[4, 5]]);
});

test('an empty map has nothing free', (t) => {
  t.is(readMap(t, []).count, 0);
});

test('what no entry names is not free', (t) => {
  t.deepEqual(pageRuns(readMap(t, [nbdEntry(10 * PAGE_SIZE, 2 * PAGE_SIZE, 3)])), [[10, 12]]);
});

test('an entry that is not page-aligned shrinks inward', (t) => {
  t.deepEqual(pageRuns(readMap(t, [qemuEntry(PAGE_SIZE - 1, 3 * PAGE_SIZE, true)])), [[1, 3]]);
  t.deepEqual(pageRuns(readMap(t, [qemuEntry(PAGE_SIZE + 1, 2 * PAGE_SIZE, true)])), [[2, 3]]);
  t.is(readMap(t, [qemuEntry(PAGE_SIZE + 1, 2 * PAGE_SIZE - 2, true)]).count, 0);
});

test('free entries that touch within a page are joined before they shrink', (t) => {
  const entries = [nbdEntry(0, 512, 3), nbdEntry(512, PAGE_SIZE, 2), nbdEntry(512 + PAGE_SIZE, PAGE_SIZE - 512, 3)];
  t.deepEqual(pageRuns(readMap(t, entries)), [[0, 2]]);
});

test('data between two free entries within a page keeps that page', (t) => {
  const entries = [
    nbdEntry(0, PAGE_SIZE + 512, 3),
    nbdEntry(PAGE_SIZE + 512, 512, 0),
    nbdEntry(PAGE_SIZE + 1024, 2 * PAGE_SIZE - 1024, 3),
  ];
  t.deepEqual(pageRuns(readMap(t, entries)), [
    [0, 1],
    [2, 3],
  ]);
});

test('the end of memory counts as the end of a page', (t) => {
  const memoryBytes = 3 * PAGE_SIZE + 512;
  t.deepEqual(
    [...readMap(t, [qemuEntry(PAGE_SIZE, 2 * PAGE_SIZE + 512, true)], memoryBytes)],
    [{ start: PAGE_SIZE, end: memoryBytes }],
  );
  t.deepEqual(
    [...readMap(t, [qemuEntry(PAGE_SIZE, 2 * PAGE_SIZE + 511, true)], memoryBytes)],
    [{ start: PAGE_SIZE, end: 3 * PAGE_SIZE }],
  );
});

test('an entry that ends within a page of the end of memory is clipped', (t) => {
  t.deepEqual(pageRuns(readMap(t, [qemuEntry(MEMORY_BYTES - PAGE_SIZE, PAGE_SIZE + 512, true)])), [[255, 256]]);
  t.is(readMap(t, [qemuEntry(MEMORY_BYTES, 512, true)]).count, 0);
});

test('an entry that reaches further beyond the end of memory is refused', (t) => {
  const entries = [nbdEntry(0, PAGE_SIZE, 0), nbdEntry(PAGE_SIZE, MEMORY_BYTES + 1, 0)];
  refusesEntries(t, entries, ['entry 1', `"length":${MEMORY_BYTES + 1}`, `ends at ${MEMORY_BYTES}`]);
});

test('entries that overlap are refused, both named', (t) => {
  const entries = [qemuEntry(8192, 4096, true), qemuEntry(0, 4096, false), qemuEntry(4095, 4096, false)];
  refusesEntries(t, entries, ['entry 2 ({"start":4095,', 'overlaps entry 1 ({"start":0,']);
});

test('the same entry twice is an overlap', (t) => {
  refusesEntries(t, [nbdEntry(0, 4096, 3), nbdEntry(0, 4096, 3)], ['entry 1', 'overlaps entry 0']);
});

test('an entry within another is an overlap, even with another between them', (t) => {
  refusesEntries(t, [nbdEntry(0, 65536, 0), nbdEntry(4096, 4096, 3)], ['entry 1', 'overlaps entry 0']);
});

test('entries of both tools in one map are refused', (t) => {
  refusesEntries(t, [qemuEntry(0, 4096, true), nbdEntry(4096, 4096, 3)], ['entry 1', 'of nbdinfo', 'of qemu-img']);
  refusesEntries(t, [nbdEntry(0, 4096, 3), qemuEntry(4096, 4096, true)], ['entry 1', 'of qemu-img', 'of nbdinfo']);
});

const badEntries: [name: string, entry: unknown, field: string][] = [
  ['a negative start', { ...qemuEntry(0, 4096, true), start: -1 }, '`start`'],
  ['a start that is no integer', { ...qemuEntry(0, 4096, true), start: 0.5 }, '`start`'],
  ['a start that is a string', { ...qemuEntry(0, 4096, true), start: '0' }, '`start`'],
  ['a start beyond 2^53', { ...qemuEntry(0, 4096, true), start: 2 ** 53 }, '`start`'],
  ['a length of 0', qemuEntry(0, 0, true), '`length`'],
  ['a negative length', nbdEntry(0, -4096, 3), '`length`'],
  ['no length', { offset: 0, type: 3 }, '`length`'],
  ['no `zero`', { start: 0, length: 4096 }, '`zero`'],
  ['a `zero` that is a number', { start: 0, length: 4096, zero: 1 }, '`zero`'],
  ['no `type`', { offset: 0, length: 4096 }, '`type`'],
  ['a `type` that is a string', { offset: 0, length: 4096, type: 'hole,zero' }, '`type`'],
  ['a negative `type`', { offset: 0, length: 4096, type: -2 }, '`type`'],
  ['an offset that is null', { offset: null, length: 4096, type: 3 }, '`offset`'],
  ['neither start nor offset', { length: 4096, zero: true }, 'neither'],
];

for (const [name, entry, field] of badEntries) {
  test(`an entry with ${name} is refused`, (t) => {
    refusesEntries(t, [entry], ['entry 0', field]);
  });
}

for (const entry of [null, 5, 'free', true, []]) {
  test(`an entry ${JSON.stringify(entry)} is refused`, (t) => {
    refusesEntries(t, [entry], ['entry 0', 'no object']);
  });
}

test('an entry that is nested deeply under a name that is empty is named in short', (t) => {
  const path = scratchFile(t, `[${'{"":'.repeat(50_000)}1${'}'.repeat(50_000)}]`);
  refuses(t, path, ['entry 0', '{"":"…"}']);
});

test('an entry with much in it is named in short', (t) => {
  const nested = '['.repeat(50_000) + ']'.repeat(50_000);
  const path = scratchFile(t, `[{"start":-1,"length":4096,"junk":${nested},"name":"${'x'.repeat(500)}"}]`);
  refuses(t, path, ['entry 0', '{"start":-1,"length":4096,"junk":"…"']);
  const error = t.throws(() => readBalloonJson(path, MEMORY_BYTES), { instanceOf: BallastError });
  t.true(error.message.length < path.length + 400);
});

for (const [name, text] of [
  ['an empty file', ''],
  ['half a map', '[{"start":0,"length":4096'],
  ['a bitmap', '\u0000\u00ff\u0000'],
  ['brackets without end', '['.repeat(100_000)],
] as const) {
  test(`${name} is refused as not JSON`, (t) => {
    refuses(t, scratchFile(t, text), ['not JSON']);
  });
}

test('JSON that is no array is refused', (t) => {
  for (const value of [{}, { start: 0, length: 4096, zero: true }, 'map', 7, null]) {
    refusesEntries(t, value, ['no array']);
  }
});

test('a file larger than any sensible map is refused unread', (t) => {
  const path = scratchFile(t, '[');
  truncateSync(path, 2 ** 40);
  refuses(t, path, [`${2 ** 40} bytes`, 'bitmap']);
});

test('a map that does not exist is not found', (t) => {
  const path = join(scratchFolder(t), 'missing');
  t.like(
    t.throws(() => readBalloonJson(path, MEMORY_BYTES)),
    { code: ErrorCode.NOT_FOUND },
  );
});

test('a directory is no map', (t) => {
  const path = join(scratchFolder(t), 'folder');
  mkdirSync(path);
  t.like(
    t.throws(() => readBalloonJson(path, MEMORY_BYTES)),
    { code: ErrorCode.BAD_FILE },
  );
});

/** A memory cut into entries at any byte, in any order. */
const anyEntries = fc
  .uniqueArray(fc.integer({ min: 1, max: MEMORY_BYTES - 1 }), { maxLength: 30 })
  .chain((cuts) => {
    const ends = [...cuts, MEMORY_BYTES].sort((a, b) => a - b);
    return fc.tuple(fc.constant(ends), fc.array(fc.boolean(), { minLength: ends.length, maxLength: ends.length }));
  })
  .map(([ends, zeros]) =>
    ends.map((end, index) => {
      const start = ends[index - 1] ?? 0;
      return qemuEntry(start, end - start, zeros[index] === true);
    }),
  )
  .chain((entries) => fc.shuffledSubarray(entries, { minLength: entries.length }));

testProp(
  'a page is free exactly when all of its bytes are, in whatever order the entries come',
  [anyEntries],
  (t, entries) => {
    const isData = (page: number): boolean =>
      entries.some(
        ({ start, length, zero }) => !zero && start < (page + 1) * PAGE_SIZE && start + length > page * PAGE_SIZE,
      );
    const free = readMap(t, entries);
    t.deepEqual(
      Array.from({ length: MEMORY_PAGES }, (_, page) => free.contains(page * PAGE_SIZE)),
      Array.from({ length: MEMORY_PAGES }, (_, page) => !isData(page)),
    );
    t.true(free.equals(free.alignInward(PAGE_SIZE)));
  },
);

testProp('both dialects of one map say the same', [anyEntries], (t, entries) => {
  const nbd = entries.map(({ start, length, zero }) => nbdEntry(start, length, zero ? 3 : 0));
  t.true(readMap(t, nbd).equals(readMap(t, entries)));
});

testProp(
  'any JSON is read or refused, never anything else',
  [
    fc.oneof(
      fc.jsonValue(),
      fc.array(fc.record({ start: fc.integer(), length: fc.integer(), zero: fc.boolean() })),
      fc.array(
        fc.dictionary(
          fc.constantFrom('start', 'offset', 'length', 'type', 'zero', 'size', 'percent'),
          fc.oneof(fc.nat(), fc.boolean()),
        ),
      ),
    ),
  ],
  (t, value) => {
    try {
      t.true(readMap(t, value).bytes <= MEMORY_BYTES);
    } catch (error) {
      t.is(BallastError.from(error).code, ErrorCode.BALLOON_MAP);
    }
  },
);

test('the fixtures are what the tools wrote: an entry a line', (t) => {
  for (const name of ['qemu-img-map', 'nbdinfo-map']) {
    t.regex(readFileSync(fixture(name), 'utf8'), /^\[\s*\{ "(?:start|offset)": 0, "length": 4096, /);
  }
});

test('a map with 130,000 entries is read in about a second', (t) => {
  const entries = Array.from({ length: 130_000 }, (_, n) => qemuEntry(n * 8192, 8192, n % 2 === 0));
  const path = scratchFile(t, JSON.stringify(entries));
  const before = performance.now();
  const free = readBalloonJson(path, 130_000 * 8192);
  const milliseconds = performance.now() - before;
  t.is(free.count, 65_000);
  // 0.2 s on an old machine with two cores; the rest is room for a busy one.
  t.true(milliseconds < 20_000, `${milliseconds} ms`);
});
