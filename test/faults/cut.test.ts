import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { ReceiveEvent } from '@ballast/receiver';
import { sendMemory, type SendEvent, type StrategyName } from '@ballast/sender';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import type { TransferResult } from '@ballast/shared/events';
import { MIN_BANDWIDTH, accept } from '@ballast/shared/transport';
import {
  Fill,
  PAGE,
  allocatedPages,
  firstWrongPage,
  writeBitmap,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { attempt, codeOf, listen, messageOf, orBallastError, transfer } from '../support/transfer.js';
import { Proxy, cutAfter, cutAt, hangAt, throttle } from './proxy.js';
import { MIB, OVERHEAD, randomNumbers, scene, takesPages } from './scenes.js';

/** 128 MiB, most of it data, with all kinds of pages between. */
const MIXED: Layout = Array.from({ length: 32 }, () => [
  { fill: Fill.data, pages: 800 },
  { fill: Fill.hole, pages: 100 },
  { fill: Fill.zero, pages: 63 },
  { fill: Fill.data, pages: 37, ballooned: true },
  { fill: Fill.speck, pages: 24 },
]).flat();
const MIXED_DATA = 32 * 861 * PAGE;
const SMALL: Layout = [{ fill: Fill.data, pages: 24 * 256 }];

/**
 * Slow enough for a receiver on a busy machine to keep up: what it has not read yet when its sender comes back, up to
 * the 32 MiB that the kernel may hold for it, is lost with the connection, and would say nothing about the sender.
 */
const SLOWLY = 100 * MIB;
/**
 * Bytes that a cut may cost then: 4 MiB and a frame in the sender, the kernel's buffer for what it sends, which Linux
 * lets grow to 4 MiB, little in the proxy, and what the receiver is working on.
 */
const ON_THE_WAY = 16 * MIB;

/** Data once, and for each connection that broke what was on its way. */
function sentOnce(result: TransferResult, cuts: number): boolean {
  return result.sentBytes <= result.dataBytes + ON_THE_WAY * cuts;
}

test.serial('a connection that is cut is made again, and nothing is sent twice but what was on its way', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  const retries: SendEvent[] = [];
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      const cuts = [cutAfter(20 * MIB), cutAfter(30 * MIB), cutAfter(11 * MIB)];
      const proxy = await Proxy.open(t, receiver, (n) => ({
        toReceiver: n < cuts.length ? [throttle(SLOWLY), ...cuts.slice(n, n + 1)] : [],
      }));
      return proxy.address;
    },
    send: {
      onEvent: (event) => {
        if (event.event === 'retry') retries.push(event);
      },
    },
  });
  t.is(retries.length, 3);
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.is(received.root, sent.root);
  t.is(sent.dataBytes, MIXED_DATA);
  t.true(sentOnce(sent, 3), `${sent.sentBytes} sent of ${sent.dataBytes}`);
});

for (const strategy of ['unmodified', 'consult', 'skip', 'bitmap'] satisfies StrategyName[]) {
  test.serial(`a cut connection is resumed with the strategy ${strategy}`, async (t) => {
    const { folder, source, copy } = await scene(t, MIXED);
    const bitmap = join(folder, 'balloon.bin');
    writeBitmap(bitmap, MIXED);
    const { sent, received } = await transfer({
      from: [source],
      to: [copy],
      via: async (receiver) => {
        const proxy = await Proxy.open(t, receiver, (n) => ({
          toReceiver: n === 0 ? [throttle(SLOWLY), cutAfter(50 * MIB)] : [],
        }));
        return proxy.address;
      },
      send: { strategy, balloon: [{ kind: 'auto' }, { kind: 'bitmap', path: bitmap }] },
    });
    t.is(firstWrongPage(copy, MIXED, 1, strategy !== 'unmodified'), undefined);
    t.is(received.root, sent.root);
    t.true(sentOnce(sent, 1), `${sent.sentBytes} sent of ${sent.dataBytes}`);
    t.true(allocatedPages(copy) * PAGE <= sent.dataBytes, 'what is zero or free is a hole');
  });
}

test.serial('two memory files are resumed, the second of them in its middle', async (t) => {
  const { folder, source, copy } = await scene(t, SMALL, 5);
  const [second, secondCopy] = [join(folder, 'second.mem'), join(folder, 'second-copy.mem')];
  writeMemoryFile(second, MIXED.slice(0, 60), 2);
  const { sent } = await transfer({
    from: [source, second],
    to: [copy, secondCopy],
    via: async (receiver) => {
      const proxy = await Proxy.open(t, receiver, (n) => ({
        toReceiver: n === 0 ? [throttle(SLOWLY), cutAfter(40 * MIB)] : [],
      }));
      return proxy.address;
    },
  });
  t.is(firstWrongPage(copy, SMALL), undefined);
  t.is(firstWrongPage(secondCopy, MIXED.slice(0, 60), 2), undefined);
  t.true(sentOnce(sent, 1));
});

test.serial('connections that are cut after a few megabytes each, over and over, get there', async (t) => {
  const { source, copy } = await scene(t, SMALL);
  const random = randomNumbers(7);
  await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      const proxy = await Proxy.open(t, receiver, (n) => ({
        toReceiver: n < 8 ? [cutAfter(2 * MIB + random(3 * MIB))] : [],
      }));
      return proxy.address;
    },
  });
  t.is(firstWrongPage(copy, SMALL), undefined);
});

test.serial(
  'with no time to try again the first cut ends the transfer at once, and the partial file is kept',
  async (t) => {
    const { source, copy, partial } = await scene(t, SMALL);
    const started = performance.now();
    const { sent, received } = await attempt({
      from: [source],
      to: [copy],
      via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [cutAfter(10 * MIB)] }))).address,
      send: { retryMs: 0 },
      receive: { timeoutMs: 1000 },
    });
    t.is(codeOf(sent), 'E_CONNECTION_LOST', messageOf(sent));
    t.is(codeOf(received), 'E_CONNECTION_LOST', messageOf(received));
    t.regex(messageOf(received), /the sender did not come back within 1 s; .*copy\.mem\.partial is kept/);
    t.true(performance.now() - started < 15_000);
    t.false(existsSync(copy));
    t.true(existsSync(partial));

    const again = await transfer({ from: [source], to: [copy] });
    t.true(again.sent.sentBytes < again.sent.dataBytes - 5 * MIB, 'the next try goes on from there');
    t.is(firstWrongPage(copy, SMALL), undefined);
  },
);

test.serial('connections on which no page is sent are made again, too, however long each of them stood', async (t) => {
  const layout: Layout = [{ fill: Fill.hole, pages: 384 * 256 }];
  const { source, copy } = await scene(t, layout);
  let retries = 0;
  const { sent } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      // The second takes longer than there is time to try again, and gets further than the first, whatever that one had
      // sent beyond its cut.
      const cuts = [cutAfter(30_000), cutAfter(750_000)];
      const proxy = await Proxy.open(t, receiver, (n) => ({ toReceiver: cuts.slice(n, n + 1) }));
      return proxy.address;
    },
    send: {
      strategy: 'unmodified',
      bandwidth: MIN_BANDWIDTH,
      retryMs: 300,
      onEvent: (event) => {
        if (event.event === 'retry') retries++;
      },
    },
  });
  t.is(retries, 2);
  t.is(sent.zeroBytes, 384 * MIB);
});

test.serial(
  'the word of publishing gets lost with the connection: the sender asks again and learns that it is done',
  async (t) => {
    const { source, copy } = await scene(t, SMALL);
    const { sent, received } = await attempt({
      from: [source],
      to: [copy],
      via: async (receiver) =>
        (await Proxy.open(t, receiver, (n) => ({ toSender: n === 0 ? [cutAt('published')] : [] }))).address,
    });
    t.is(codeOf(sent), undefined, messageOf(sent));
    t.is(codeOf(received), undefined, messageOf(received));
    t.is(firstWrongPage(copy, SMALL), undefined);
  },
);

test.serial('when the word of publishing was lost, what the first connection carried is counted once', async (t) => {
  const { source, copy } = await scene(t, SMALL);
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) =>
      (await Proxy.open(t, receiver, (n) => ({ toSender: n === 0 ? [cutAt('published')] : [] }))).address,
  });
  const difference = Math.abs(sent.wireBytes - received.wireBytes);
  t.true(difference < 64 * 1024, `${sent.wireBytes} here, ${received.wireBytes} there`);
});

test.serial('the commit gets lost with the connection: the next one verifies and publishes', async (t) => {
  const { source, copy } = await scene(t, SMALL);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) =>
      (await Proxy.open(t, receiver, (n) => ({ toReceiver: n === 0 ? [cutAt('commit')] : [] }))).address,
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.is(firstWrongPage(copy, SMALL), undefined);
});

test.serial(
  'the word of publishing gets lost for good: the sender says that nobody knows, the receiver that it is done',
  async (t) => {
    const { source, copy } = await scene(t, SMALL);
    const { sent, received } = await attempt({
      from: [source],
      to: [copy],
      via: async (receiver) =>
        (await Proxy.open(t, receiver, () => ({ toSender: [cutAt('published'), cutAt('published-before')] }))).address,
      send: { retryMs: 500 },
      receive: { timeoutMs: 1000 },
    });
    t.is(codeOf(sent), 'E_CONNECTION_LOST');
    t.regex(messageOf(sent), /committed, but the receiver did not say that it published/);
    t.is(codeOf(received), undefined, messageOf(received));
    t.is(firstWrongPage(copy, SMALL), undefined);
  },
);

test.serial('a lost goodbye costs nobody the transfer', async (t) => {
  const { source, copy } = await scene(t, SMALL);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [cutAt('goodbye')] }))).address,
    receive: { timeoutMs: 1000 },
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
});

test.serial('a receiver that waits for a lost goodbye is not kept by others who come meanwhile', async (t) => {
  t.timeout(20_000);
  const { source, copy } = await scene(t, SMALL);
  const receiver = await listen(t, { files: [copy], timeoutMs: 1000 });
  const proxy = await Proxy.open(t, receiver.address, () => ({ toReceiver: [cutAt('goodbye')] }));
  await sendMemory({ files: [source], to: proxy.address });
  const ended = new AbortController();
  const others = (async (): Promise<void> => {
    while (!ended.signal.aborted) {
      await orBallastError(sendMemory({ files: [source], to: receiver.address, retryMs: 0 }));
      await sleep(200);
    }
  })();
  t.is(firstWrongPage(copy, SMALL), undefined);
  await receiver.result;
  ended.abort();
  await others;
});

test.serial(
  'a sender that comes back before the receiver has noticed is served, and another is told that it is busy',
  async (t) => {
    const { folder, source, copy } = await scene(t, SMALL, 3);
    const other = join(folder, 'other.mem');
    writeMemoryFile(other, [{ fill: Fill.data, pages: 16 }], 9);
    const connected: ReceiveEvent[] = [];
    const waiting = await listen(t, {
      files: [copy],
      timeoutMs: 60_000,
      onEvent: (event) => {
        if (event.event === 'connected') connected.push(event);
      },
    });
    const proxy = await Proxy.open(t, waiting.address, () => ({ toReceiver: [throttle(40 * MIB)] }));
    // The sender hears nothing for a second; the receiver would wait for a minute.
    const sending = orBallastError(sendMemory({ files: [source], to: proxy.address, timeoutMs: 1000 }));
    await proxy.passed(8 * MIB);
    proxy.hang();
    const stranger = await orBallastError(sendMemory({ files: [other], to: waiting.address, retryMs: 0 }));
    t.is(codeOf(stranger), 'E_BUSY', messageOf(stranger));
    const sent = await sending;
    t.is(codeOf(sent), undefined, messageOf(sent));
    t.is(codeOf(await orBallastError(waiting.result)), undefined);
    t.is(connected.length, 2);
    t.is(firstWrongPage(copy, SMALL), undefined);
  },
);

test.serial('a connection that goes dead when the file has its name is taken over, too', async (t) => {
  const { source, copy } = await scene(t, SMALL);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) =>
      (await Proxy.open(t, receiver, (n) => ({ toSender: n === 0 ? [hangAt('published')] : [] }))).address,
    send: { timeoutMs: 1000 },
    receive: { timeoutMs: 60_000 },
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
});

test.serial('another memory in the place of one whose sender is gone leaves nothing of it', async (t) => {
  const { folder, source, copy } = await scene(t, SMALL, 3);
  const other = join(folder, 'other.mem');
  const otherLayout: Layout = [
    { fill: Fill.hole, pages: 600 },
    { fill: Fill.zero, pages: 600 },
    { fill: Fill.data, pages: 24 * 256 - 1200 },
  ];
  writeMemoryFile(other, otherLayout, 2);
  const waiting = await listen(t, { files: [copy] });
  const proxy = await Proxy.open(t, waiting.address, () => ({ toReceiver: [cutAfter(10 * MIB)] }));
  const first = await orBallastError(sendMemory({ files: [source], to: proxy.address, retryMs: 0 }));
  t.is(codeOf(first), 'E_CONNECTION_LOST');
  await sleep(200);
  const second = await orBallastError(sendMemory({ files: [other], to: waiting.address }));
  t.is(codeOf(second), undefined, messageOf(second));
  t.is(codeOf(await orBallastError(waiting.result)), undefined);
  t.is(firstWrongPage(copy, otherLayout, 2), undefined);
  takesPages(t, copy, 24 * 256 - 1200);
});

test.serial('a memory of another size in the place of one whose sender is gone is received as well', async (t) => {
  const { folder, source, copy } = await scene(t, SMALL, 3);
  const other = join(folder, 'other.mem');
  const otherLayout: Layout = [
    { fill: Fill.data, pages: 100 },
    { fill: Fill.hole, pages: 900 },
  ];
  writeMemoryFile(other, otherLayout, 2);
  const waiting = await listen(t, { files: [copy] });
  const proxy = await Proxy.open(t, waiting.address, () => ({ toReceiver: [cutAfter(10 * MIB)] }));
  await orBallastError(sendMemory({ files: [source], to: proxy.address, retryMs: 0 }));
  await sleep(200);
  const second = await orBallastError(sendMemory({ files: [other], to: waiting.address }));
  t.is(codeOf(second), undefined, messageOf(second));
  t.is(codeOf(await orBallastError(waiting.result)), undefined);
  t.is(firstWrongPage(copy, otherLayout, 2), undefined);
  takesPages(t, copy, 100);
});

test.serial('an in-place transfer that is cut goes on by itself, and its marker goes when it is done', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  writeMemoryFile(copy, [{ fill: Fill.data, pages: 32 * 1024 }], 5);
  const { sent } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      const proxy = await Proxy.open(t, receiver, (n) => ({
        toReceiver: n === 0 ? [throttle(SLOWLY), cutAfter(50 * MIB)] : [],
      }));
      return proxy.address;
    },
    receive: { inPlace: true },
  });
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.false(existsSync(`${copy}.incomplete`));
  t.true(sentOnce(sent, 1));
  t.true(allocatedPages(copy) * PAGE <= sent.dataBytes * (1 + OVERHEAD));
});

test.serial('an in-place transfer that was given up is marked, and the next one goes on from there', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  writeMemoryFile(copy, [{ fill: Fill.zero, pages: 32 * 1024 }]);
  const { received } = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [cutAfter(60 * MIB)] }))).address,
    send: { retryMs: 0 },
    receive: { inPlace: true, timeoutMs: 1000 },
  });
  t.is(codeOf(received), 'E_CONNECTION_LOST', messageOf(received));
  t.regex(messageOf(received), /copy\.mem is incomplete and must not be used/);
  t.true(existsSync(`${copy}.incomplete`));

  const { sent } = await transfer({ from: [source], to: [copy], receive: { inPlace: true } });
  t.true(sent.sentBytes < sent.dataBytes - 50 * MIB, `${sent.sentBytes} sent of ${sent.dataBytes}`);
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.false(existsSync(`${copy}.incomplete`));
  takesPages(t, copy, MIXED_DATA / PAGE);
});

/** How a receiver that was busy may meet the next connection, since it ends. */
const ENDINGS: Readonly<Record<string, (socket: Socket) => void>> = {
  resets: (socket) => {
    socket.once('data', () => socket.resetAndDestroy()).resume();
  },
  'turns away': (socket) => {
    const connection = accept(socket, { timeoutMs: 5000, peer: 'the sender' });
    void connection.abort(new BallastError(ErrorCode.ABORTED, 'the receiver ends'));
  },
};

for (const [what, end] of Object.entries(ENDINGS)) {
  test.serial(
    `a receiver that was busy and ${what} the next connection, since it ends: what it said is the reason`,
    async (t) => {
      const { source } = await scene(t, SMALL);
      let connections = 0;
      const server = createServer({ pauseOnConnect: true }, (socket) => {
        if (connections++ > 0) {
          end(socket);
          return;
        }
        const connection = accept(socket, { timeoutMs: 5000, peer: 'the sender' });
        void connection.abort(new BallastError(ErrorCode.BUSY, 'another receiver is writing copy.mem.partial'));
      });
      t.teardown(() => server.close());
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const address = server.address();
      if (address === null || typeof address === 'string') throw new Error('the server has no port');
      const sent = await orBallastError(sendMemory({ files: [source], to: { host: '127.0.0.1', port: address.port } }));
      t.is(codeOf(sent), 'E_BUSY', messageOf(sent));
      t.regex(messageOf(sent), /another receiver is writing/);
      t.is(connections, 2);
    },
  );
}
