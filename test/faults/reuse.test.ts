import { closeSync, existsSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { sendMemory } from '@ballast/sender';
import { Fill, PAGE, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { codeOf, listen, messageOf, orBallastError, transfer } from '../support/transfer.js';
import { Proxy, cutAfter, throttle } from './proxy.js';
import { MIB, identityOf, overwritePages, randomNumbers, scene, takesPages } from './scenes.js';

/** 128 MiB, three quarters of it data. */
const LAYOUT: Layout = Array.from({ length: 16 }, () => [
  { fill: Fill.data, pages: 1536 },
  { fill: Fill.hole, pages: 400 },
  { fill: Fill.zero, pages: 112 },
]).flat();
const PAGES = 16 * 2048;
const DATA_PAGES = 16 * 1536;

/** The n-th page of data in LAYOUT. */
function dataPage(n: number): number {
  return Math.floor(n / 1536) * 2048 + (n % 1536);
}

function pagesFrom(start: number, count: number): number[] {
  return Array.from({ length: count }, (_, n) => start + n);
}

test.serial('an older copy of which one page in twenty changed, in runs, costs less than 8% of the data', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 4);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, LAYOUT);
  const before = identityOf(old);
  const contents = readFileSync(old);
  for (let run = 0; run < 16; run++) overwritePages(source, pagesFrom(2048 * run + 700, 77), Fill.data, 2);
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
  t.is(sent.dataBytes, DATA_PAGES * PAGE);
  t.is(sent.sentBytes, 16 * 77 * PAGE);
  t.true(sent.wireBytes < 0.08 * sent.dataBytes, `${sent.wireBytes} on the wire`);
  t.true(readFileSync(copy).equals(readFileSync(source)));
  takesPages(t, copy, DATA_PAGES);
  t.deepEqual(identityOf(old), before);
  t.true(readFileSync(old).equals(contents));
});

test.serial(
  'an older copy of which one page in twenty changed, all over the place, costs less than 8% of the data',
  async (t) => {
    const { folder, source, copy } = await scene(t, LAYOUT, 4);
    const old = join(folder, 'old.mem');
    writeMemoryFile(old, LAYOUT);
    const before = identityOf(old);
    const random = randomNumbers(11);
    const changed = new Set(pagesFrom(0, DATA_PAGES / 20).map(() => dataPage(random(DATA_PAGES))));
    overwritePages(source, changed, Fill.data, 2);
    const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
    t.is(sent.sentBytes, changed.size * PAGE);
    t.true(sent.wireBytes < 0.08 * sent.dataBytes, `${sent.wireBytes} on the wire`);
    t.true(readFileSync(copy).equals(readFileSync(source)));
    takesPages(t, copy, DATA_PAGES);
    t.deepEqual(identityOf(old), before);
  },
);

test.serial('an older copy with the same content costs next to nothing', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 4);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, LAYOUT);
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
  t.is(sent.sentBytes, 0);
  t.true(sent.wireBytes < 0.01 * sent.dataBytes, `${sent.wireBytes} on the wire`);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  takesPages(t, copy, DATA_PAGES);
});

test.serial(
  'an older copy that holds data where the source has holes, and holes where it has data, makes no difference',
  async (t) => {
    const { folder, source, copy } = await scene(t, LAYOUT, 4);
    const old = join(folder, 'old.mem');
    writeMemoryFile(old, [
      { fill: Fill.hole, pages: 1000 },
      { fill: Fill.data, pages: PAGES - 1000 },
    ]);
    const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
    t.is(sent.sentBytes, 1000 * PAGE);
    t.is(firstWrongPage(copy, LAYOUT), undefined);
    takesPages(t, copy, DATA_PAGES);
  },
);

test.serial('an older copy that is smaller serves as far as it goes', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 4);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, LAYOUT);
  // Not even a whole number of pages.
  truncateSync(old, 4 * 2048 * PAGE + 5 * PAGE + 123);
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
  t.is(sent.sentBytes, (12 * 1536 - 5) * PAGE);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test.serial('an older copy that is larger serves, and what is beyond the memory does not come along', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 5);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, [...LAYOUT, { fill: Fill.data, pages: 3000 }]);
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
  t.is(sent.sentBytes, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  t.is(identityOf(copy).size, PAGES * PAGE);
});

test.serial('an older copy that is empty does no harm', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 3);
  const old = join(folder, 'old.mem');
  writeFileSync(old, '');
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
  t.is(sent.sentBytes, sent.dataBytes);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test.serial('a transfer onto an older copy that is cut goes on with both', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 4);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, LAYOUT);
  // Half of all pages: 48 MiB to send.
  for (let run = 0; run < 16; run++) overwritePages(source, pagesFrom(2048 * run, 768), Fill.data, 2);
  const { sent } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      const proxy = await Proxy.open(t, receiver, (n) => ({ toReceiver: n < 2 ? [cutAfter(16 * MIB)] : [] }));
      return proxy.address;
    },
    receive: { reuse: [old] },
  });
  t.true(sent.sentBytes <= 16 * 768 * PAGE + 2 * 16 * MIB, `${sent.sentBytes} sent`);
  t.true(readFileSync(copy).equals(readFileSync(source)));
  takesPages(t, copy, DATA_PAGES);
});

test.serial('a partial file and an older copy serve together in the next try', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 4);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, LAYOUT);
  overwritePages(source, pagesFrom(0, 1536), Fill.data, 2);
  // The partial file has the first stretch as it is now, and then garbage.
  writeMemoryFile(`${copy}.partial`, [{ fill: Fill.data, pages: 1536 }], 2);
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [old] } });
  t.is(sent.sentBytes, 0);
  t.true(readFileSync(copy).equals(readFileSync(source)));
  takesPages(t, copy, DATA_PAGES);
});

test.serial('the file itself is the older copy that --force replaces', async (t) => {
  const { source, copy } = await scene(t, LAYOUT, 4);
  writeMemoryFile(copy, LAYOUT);
  const { ino } = identityOf(copy);
  overwritePages(source, pagesFrom(100, 200), Fill.data, 2);
  const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [copy], force: true } });
  t.is(sent.sentBytes, 200 * PAGE);
  t.not(identityOf(copy).ino, ino);
  t.true(readFileSync(copy).equals(readFileSync(source)));
});

test.serial('without --force the file itself is refused before anyone connects', async (t) => {
  const { source, copy } = await scene(t, [{ fill: Fill.data, pages: 16 }]);
  writeMemoryFile(copy, [{ fill: Fill.data, pages: 16 }], 2);
  const receiving = listen(t, { files: [copy], reuse: [copy] });
  await t.throwsAsync(receiving, { code: 'E_EXISTS' });
  t.true(existsSync(source));
});

test.serial('each of several files has an older copy of its own', async (t) => {
  const small = LAYOUT.slice(0, 9);
  const { folder, source, copy } = await scene(t, small, 8);
  const [second, secondCopy] = [join(folder, 'second.mem'), join(folder, 'second-copy.mem')];
  const olds = [join(folder, 'old-1.mem'), join(folder, 'old-2.mem')] as const;
  writeMemoryFile(second, small, 3);
  writeMemoryFile(olds[0], small);
  writeMemoryFile(olds[1], small, 3);
  overwritePages(second, [5, 500, 5000], Fill.data, 8);
  const { sent } = await transfer({
    from: [source, second],
    to: [copy, secondCopy],
    receive: { reuse: olds },
  });
  t.is(sent.sentBytes, 3 * PAGE);
  t.true(readFileSync(copy).equals(readFileSync(source)));
  t.true(readFileSync(secondCopy).equals(readFileSync(second)));
});

test.serial('fewer older copies than files are refused', async (t) => {
  const { folder } = await scene(t, [{ fill: Fill.data, pages: 16 }]);
  const files = [join(folder, 'a'), join(folder, 'b')];
  await t.throwsAsync(listen(t, { files, reuse: [join(folder, 'guest.mem')] }), { code: 'E_USAGE' });
});

test.serial(
  'an older copy that changes while it is used costs the leaves that changed, and nothing else',
  async (t) => {
    const { folder, source, copy } = await scene(t, LAYOUT, 4);
    const old = join(folder, 'old.mem');
    writeMemoryFile(old, LAYOUT);
    // What has to be sent comes first, and slowly: meanwhile the older copy is hashed and told to its end.
    overwritePages(source, pagesFrom(0, 1536), Fill.data, 2);
    const warnings: string[] = [];
    const waiting = await listen(t, {
      files: [copy],
      reuse: [old],
      onEvent: (event) => {
        if (event.event === 'warning') warnings.push(event.message);
      },
    });
    const proxy = await Proxy.open(t, waiting.address, () => ({ toReceiver: [throttle(2 * MIB)] }));
    const sending = orBallastError(sendMemory({ files: [source], to: proxy.address }));
    await proxy.passed(3 * MIB);
    overwritePages(old, pagesFrom(15 * 2048, 32), Fill.data, 50);
    const sent = await sending;
    t.is(codeOf(sent), undefined, messageOf(sent));
    t.is(codeOf(await orBallastError(waiting.result)), undefined);
    t.true(readFileSync(copy).equals(readFileSync(source)));
    t.is(warnings.length, 2, warnings.join('\n'));
  },
);

test.serial(
  'an older copy that becomes shorter while it is used costs what is missing, and nothing else',
  async (t) => {
    const { folder, source, copy } = await scene(t, LAYOUT, 4);
    const old = join(folder, 'old.mem');
    writeMemoryFile(old, LAYOUT);
    overwritePages(source, pagesFrom(0, 1536), Fill.data, 2);
    const warnings: string[] = [];
    const { sent } = await transfer({
      from: [source],
      to: [copy],
      receive: {
        reuse: [old],
        onEvent: (event) => {
          if (event.event === 'warning' && event.code === 'E_READ') warnings.push(event.message);
        },
      },
      via: async (receiver) => {
        const proxy = await Proxy.open(t, receiver, () => ({ toReceiver: [throttle(4 * MIB)] }));
        void proxy.passed(2 * MIB).then(() => {
          truncateSync(old, 10 * 2048 * PAGE);
        });
        return proxy.address;
      },
    });
    t.is(sent.sentBytes, 7 * 1536 * PAGE);
    t.true(readFileSync(copy).equals(readFileSync(source)));
    takesPages(t, copy, DATA_PAGES);
    t.is(warnings.length, 1, warnings.join('\n'));
  },
);

test.serial('an older copy may be given by a descriptor that is open for reading', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT.slice(0, 3), 4);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, LAYOUT.slice(0, 3));
  const fd = openSync(old, 'r');
  try {
    const { sent } = await transfer({ from: [source], to: [copy], receive: { reuse: [`/proc/self/fd/${fd}`] } });
    t.is(sent.sentBytes, 0);
  } finally {
    closeSync(fd);
  }
});
