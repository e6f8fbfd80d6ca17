import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fc } from '@fast-check/ava';
import test from 'ava';
import { STRATEGY_NAMES, type BalloonOrigin, type StrategyName } from '@ballast/sender';
import { countsEveryPage, temporaryFolder } from '../support/folder.js';
import {
  Fill,
  LEAF,
  PAGE,
  allocatedPages,
  contentsOf,
  countPages,
  firstWrongPage,
  isData,
  isFree,
  writeBitmap,
  writeMemoryFile,
  type Layout,
  type Run,
} from '../support/memory-file.js';
import { transfer } from '../support/transfer.js';
import { sameButHeartbeats } from '../support/wire.js';

/** Runs down to one page; what is first and what is last is anything, too. */
const layouts: fc.Arbitrary<Layout> = fc.array(
  fc.record({
    fill: fc.constantFrom(...Object.values(Fill)),
    pages: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 5 }), fc.integer({ min: 10, max: 70 })),
    ballooned: fc.boolean(),
  }),
  { minLength: 1, maxLength: 14 },
);

test('whatever the pages are, each strategy brings them over and counts them right', async (t) => {
  const folder = await temporaryFolder(t);
  const exact = await countsEveryPage(folder);
  const [source, bitmap] = [join(folder, 'guest.mem'), join(folder, 'balloon.bits')];
  const balloon: BalloonOrigin[] = [{ kind: 'holes' }, { kind: 'bitmap', path: bitmap }];
  let round = 0;

  await fc.assert(
    fc.asyncProperty(layouts, fc.constantFrom('pread', 'mmap'), async (layout, read) => {
      writeMemoryFile(source, layout, 7);
      writeBitmap(bitmap, layout);
      const blocks = allocatedPages(source);
      const roots = new Map<StrategyName, string>();
      for (const strategy of STRATEGY_NAMES) {
        const knowsBalloon = strategy !== 'unmodified';
        const dataPages = countPages(layout, (run) => isData(run) && !(knowsBalloon && isFree(run)));
        const copy = join(folder, `copy-${round++}.mem`);
        const { sent, received } = await transfer({ from: [source], to: [copy], send: { strategy, balloon, read } });

        t.true(readFileSync(copy).equals(contentsOf(layout, 7, knowsBalloon)), `${strategy}: another image`);
        if (exact) t.true(allocatedPages(copy) <= dataPages, `${strategy}: pages that hold nothing are allocated`);
        t.is(allocatedPages(source), blocks, `${strategy}: the source has other blocks than before`);
        t.is(received.root, sent.root);
        checkCounts(layout, strategy, sent);
        t.is(received.dataBytes, sent.dataBytes);
        t.is(received.whiteouts, sent.whiteouts);
        sameButHeartbeats(t, received.wireBytes, sent.wireBytes);
        roots.set(strategy, sent.root);
      }
      t.is(roots.get('skip'), roots.get('bitmap'));
      t.is(roots.get('consult'), roots.get('bitmap'));
    }),
    { numRuns: 25 },
  );

  function checkCounts(
    layout: Layout,
    strategy: StrategyName,
    result: Awaited<ReturnType<typeof transfer>>['sent'],
  ): void {
    const asks = strategy !== 'unmodified';
    const count = (which: (run: Run) => boolean): number => countPages(layout, which);
    const pages = count(() => true);
    const free = asks ? count(isFree) : 0;
    const data = count((run) => isData(run) && !(asks && isFree(run)));
    const zero = pages - data - free;
    t.is(result.memoryBytes, pages * PAGE);
    t.is(result.dataBytes, data * PAGE);
    t.is(result.sentBytes, data * PAGE);
    t.is(result.zeroBytes, zero * PAGE);
    t.is(result.freeBytes, free * PAGE);
    t.is(result.dataBytes + result.zeroBytes + result.freeBytes, result.memoryBytes);
    t.is(result.scannedPages, pages - free);
    t.is(result.askedPages, asks ? pages : 0);
    t.is(result.strategy, strategy);
    t.is(result.whiteouts, { unmodified: zero, consult: zero + free, skip: zero, bitmap: 0 }[strategy]);
    const ranges = { unmodified: 0, consult: 0, skip: free, bitmap: free + zero }[strategy];
    t.is(result.mapBytes > 0, ranges > 0, `${strategy}: ${ranges} pages in ranges of ${result.mapBytes} bytes`);
  }
});

for (const pages of [1, 2, 15, 16, 17, 31, 33, 16 * 32 + 5]) {
  test(`memory of ${pages} pages arrives to its last byte`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    const layout: Layout = [
      { fill: Fill.hole, pages: pages - 1 },
      { fill: Fill.speck, pages: 1 },
    ];
    writeMemoryFile(source, layout);
    for (const strategy of STRATEGY_NAMES) {
      const { sent } = await transfer({ from: [source], to: [copy], send: { strategy }, receive: { force: true } });
      t.is(sent.dataBytes, PAGE);
      t.is(firstWrongPage(copy, layout), undefined);
    }
  });
}

test('memory that holds nothing at all arrives as one hole', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, [{ fill: Fill.hole, pages: 5000 }]);
  for (const strategy of STRATEGY_NAMES) {
    const { sent } = await transfer({ from: [source], to: [copy], send: { strategy }, receive: { force: true } });
    t.is(sent.dataBytes, 0);
    t.is(allocatedPages(copy), 0);
    t.is(readFileSync(copy).length, 5000 * PAGE);
  }
});

test('memory without a single zero page is sent whole', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  const layout: Layout = [{ fill: Fill.data, pages: 16 * 40 + 3 }];
  writeMemoryFile(source, layout);
  const { sent } = await transfer({ from: [source], to: [copy] });
  t.is(sent.dataBytes, sent.memoryBytes);
  t.is(sent.mapBytes, 0);
  t.is(firstWrongPage(copy, layout), undefined);
});

/** Offsets where a number of 31 or of 32 bits ends, in pages. */
const [PAGES_2_GIB, PAGES_4_GIB, PAGES_5_GIB] = [2 ** 31 / PAGE, 2 ** 32 / PAGE, (5 * 2 ** 30) / PAGE];

const HUGE: Layout = [
  { fill: Fill.data, pages: 1 },
  { fill: Fill.hole, pages: PAGES_2_GIB - 3 },
  { fill: Fill.data, pages: 4 },
  { fill: Fill.hole, pages: PAGES_4_GIB - PAGES_2_GIB - 4 },
  { fill: Fill.speck, pages: 4 },
  { fill: Fill.zero, pages: 2 },
  { fill: Fill.hole, pages: PAGES_5_GIB - PAGES_4_GIB - 5 },
  { fill: Fill.data, pages: 1 },
];

for (const strategy of STRATEGY_NAMES.filter((name) => name !== 'unmodified')) {
  test(`pages across 2 GiB and 4 GiB keep their places with ${strategy}`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, HUGE);
    const { sent } = await transfer({ from: [source], to: [copy], send: { strategy } });
    t.is(sent.memoryBytes, 5 * 2 ** 30);
    t.is(sent.dataBytes, 10 * PAGE);
    t.is(sent.zeroBytes, 2 * PAGE);
    t.is(firstWrongPage(copy, HUGE), undefined);
    if (await countsEveryPage(folder)) t.is(allocatedPages(copy), 10);
    // All that holes and scanned zeros cost with whiteouts; next to nothing without.
    if (strategy === 'consult') t.true(sent.wireBytes > 9 * sent.whiteouts);
    else t.true(sent.wireBytes < 10 * PAGE + 2 * LEAF);
  });
}

test('a source read through mappings across 4 GiB stays sparse and arrives the same', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, HUGE);
  const blocks = allocatedPages(source);
  const { sent } = await transfer({ from: [source], to: [copy], send: { read: 'mmap' } });
  t.is(sent.dataBytes, 10 * PAGE);
  t.is(firstWrongPage(copy, HUGE), undefined);
  t.is(allocatedPages(source), blocks);
});

test('several memory files of one guest arrive in their order, under one root', async (t) => {
  const folder = await temporaryFolder(t);
  const layouts: Layout[] = [
    [
      { fill: Fill.data, pages: 20 },
      { fill: Fill.hole, pages: 5 },
    ],
    [{ fill: Fill.hole, pages: 7 }],
    [
      { fill: Fill.zero, pages: 3 },
      { fill: Fill.speck, pages: 30 },
    ],
  ];
  const from = layouts.map((_, index) => join(folder, `node${index}.mem`));
  const to = layouts.map((_, index) => join(folder, `copy${index}.mem`));
  layouts.forEach((layout, index) => {
    writeMemoryFile(from[index] ?? '', layout, index + 1);
  });
  for (const strategy of STRATEGY_NAMES) {
    const { sent, received } = await transfer({ from, to, send: { strategy }, receive: { force: true } });
    t.is(sent.root, received.root);
    t.is(sent.memoryBytes, 65 * PAGE);
    t.is(sent.dataBytes, 50 * PAGE);
    layouts.forEach((layout, index) => {
      t.is(firstWrongPage(to[index] ?? '', layout, index + 1), undefined);
    });
  }
});

test('a different number of files on the two sides is a mismatch, and nothing is made', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 4 }]);
  const to = [join(folder, 'a.mem'), join(folder, 'b.mem')];
  await t.throwsAsync(transfer({ from: [source], to }), { code: 'E_MISMATCH', message: /1 memory file.* 2 name/ });
  for (const path of to) {
    t.false(existsSync(path));
    t.false(existsSync(`${path}.partial`));
  }
});

test('a sink verifies the memory and writes no file', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, [
    { fill: Fill.data, pages: 100 },
    { fill: Fill.hole, pages: 100 },
  ]);
  const { root } = (await transfer({ from: [source], to: [copy] })).sent;
  const { sent, received } = await transfer({ from: [source], to: [], receive: { sink: true } });
  t.is(sent.root, root);
  t.is(received.root, root);
});
