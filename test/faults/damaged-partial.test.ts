import { truncateSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { StrategyName } from '@ballast/sender';
import type { TransferResult } from '@ballast/shared/events';
import {
  Fill,
  PAGE,
  firstWrongPage,
  isData,
  placed,
  writeBitmap,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { attempt, codeOf, messageOf, transfer } from '../support/transfer.js';
import { Proxy, cutAfter } from './proxy.js';
import { MIB, overwriteBytes, overwritePages, resize, scene, takesPages } from './scenes.js';

/** 64 MiB: a hole, zeros and ballooned pages in each of 8 stretches, and data. */
const LAYOUT: Layout = Array.from({ length: 8 }, () => [
  { fill: Fill.data, pages: 1500 },
  { fill: Fill.hole, pages: 300 },
  { fill: Fill.data, pages: 40, ballooned: true },
  { fill: Fill.zero, pages: 208 },
]).flat();
const PAGES = 8 * 2048;

/** A transfer that is given up two thirds of the way, something done to the partial file, and the transfer again. */
async function resumed(
  t: ExecutionContext,
  damage: (partial: string) => void,
  strategy: StrategyName = 'bitmap',
): Promise<{ sent: TransferResult; copy: string }> {
  const { folder, source, copy, partial } = await scene(t, LAYOUT, 3);
  const bitmap = join(folder, 'balloon.bin');
  writeBitmap(bitmap, LAYOUT);
  const balloon = [{ kind: 'auto' }, { kind: 'bitmap', path: bitmap }] as const;
  const first = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [cutAfter(32 * MIB)] }))).address,
    send: { retryMs: 0, strategy, balloon },
    receive: { timeoutMs: 500 },
  });
  t.is(codeOf(first.received), 'E_CONNECTION_LOST', messageOf(first.received));
  damage(partial);
  const { sent, received } = await transfer({ from: [source], to: [copy], send: { strategy, balloon } });
  t.is(received.root, sent.root);
  t.is(firstWrongPage(copy, LAYOUT, 1, strategy !== 'unmodified'), undefined);
  takesPages(t, copy, sent.dataBytes / PAGE);
  t.false(existsSync(partial));
  return { sent, copy };
}

test.serial(
  'a partial file in which bytes were changed ends up right, and only those pages are sent again',
  async (t) => {
    const { sent } = await resumed(t, (partial) => {
      for (let offset = 1000; offset < 20 * MIB; offset += MIB) overwriteBytes(partial, offset, Buffer.from([77]));
    });
    t.true(sent.sentBytes < sent.dataBytes - 24 * MIB, `${sent.sentBytes} sent of ${sent.dataBytes}`);
  },
);

test.serial('a partial file in which pages became zeros ends up right', async (t) => {
  await resumed(t, (partial) => {
    overwritePages(partial, [0, 1, 17, 100, 101, 102, 1400, 3000], Fill.zero, 1);
  });
});

test.serial('a partial file that was made shorter ends up right', async (t) => {
  await resumed(t, (partial) => {
    truncateSync(partial, 9 * MIB + 123);
  });
});

test.serial('a partial file that was emptied ends up right', async (t) => {
  const { sent } = await resumed(t, (partial) => {
    truncateSync(partial, 0);
  });
  t.is(sent.sentBytes, sent.dataBytes);
});

test.serial('a partial file that was made longer ends up right', async (t) => {
  await resumed(t, (partial) => {
    resize(partial, PAGES * PAGE + 3 * MIB);
    overwriteBytes(partial, PAGES * PAGE + MIB, Buffer.alloc(MIB, 'beyond'));
  });
});

for (const strategy of ['unmodified', 'consult', 'skip', 'bitmap'] satisfies StrategyName[]) {
  test.serial(
    `garbage where the source has holes, zeros and free pages becomes holes with the strategy ${strategy}`,
    async (t) => {
      await resumed(
        t,
        (partial) => {
          for (const run of placed(LAYOUT)) {
            if (isData(run) && run.ballooned !== true) continue;
            overwritePages(
              partial,
              Array.from({ length: run.pages }, (_, n) => run.start + n),
              Fill.data,
              66,
            );
          }
        },
        strategy,
      );
    },
  );
}

test.serial('a partial file of resident zeros becomes as sparse as the source', async (t) => {
  await resumed(t, (partial) => {
    overwritePages(
      partial,
      Array.from({ length: PAGES }, (_, page) => page),
      Fill.zero,
      1,
    );
  });
});

test.serial('the partial file of another guest ends up as this one', async (t) => {
  const { sent } = await resumed(t, (partial) => {
    writeMemoryFile(partial, [{ fill: Fill.data, pages: PAGES }], 99);
  });
  t.is(sent.sentBytes, sent.dataBytes);
});

test.serial('pages that lie in the partial file a page further on are not taken for right', async (t) => {
  await resumed(t, (partial) => {
    writeMemoryFile(
      partial,
      [{ fill: Fill.hole, pages: 1 }, ...LAYOUT.slice(0, -1), { fill: Fill.zero, pages: 207 }],
      1,
    );
  });
});

test.serial('a complete partial file costs next to nothing', async (t) => {
  const { sent } = await resumed(t, (partial) => {
    writeMemoryFile(partial, LAYOUT);
  });
  t.is(sent.sentBytes, 0);
  t.true(sent.wireBytes < sent.dataBytes / 100, `${sent.wireBytes} on the wire`);
});

test.serial('strategies may change between two tries', async (t) => {
  const { folder, source, copy } = await scene(t, LAYOUT, 3);
  const bitmap = join(folder, 'balloon.bin');
  writeBitmap(bitmap, LAYOUT);
  await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [cutAfter(40 * MIB)] }))).address,
    send: { retryMs: 0, strategy: 'unmodified' },
    receive: { timeoutMs: 500 },
  });
  const balloon = [{ kind: 'auto' }, { kind: 'bitmap', path: bitmap }] as const;
  await transfer({ from: [source], to: [copy], send: { strategy: 'skip', balloon } });
  t.is(firstWrongPage(copy, LAYOUT, 1, true), undefined);
  takesPages(t, copy, 8 * 1500);
});
