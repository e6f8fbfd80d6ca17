import { existsSync, readFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import type { ReceiveEvent } from '@ballast/receiver';
import type { SendEvent } from '@ballast/sender';
import { FrameType, PREAMBLE, leafTableSize, type FrameHeader } from '@ballast/shared/protocol';
import { Fill, firstWrongPage, type Layout } from '../support/memory-file.js';
import { attempt, codeOf, messageOf, transfer, type Ended } from '../support/transfer.js';
import { Wire, framesOf, type RecordedFrame } from '../support/wire.js';
import { Proxy, duplicate, flipAt, flipEvery, lose, reorder, stallAfter, throttle, type Faults } from './proxy.js';
import { MIB, randomNumbers, scene } from './scenes.js';

/** 8 MiB with all kinds of pages. */
const SMALL: Layout = Array.from({ length: 8 }, () => [
  { fill: Fill.data, pages: 180 },
  { fill: Fill.hole, pages: 40 },
  { fill: Fill.zero, pages: 20 },
  { fill: Fill.speck, pages: 16 },
]).flat();

/** No transfer here takes so long, unless a side waits for what never comes. */
const PATIENCE_MS = 20_000;

interface Told {
  readonly warnings: readonly ReceiveEvent[];
  readonly retries: readonly SendEvent[];
}

/** Moves a memory over a way with faults, and tells how it ended and what was said about it. */
async function over(
  t: ExecutionContext,
  layout: Layout,
  faults: (connection: number) => Faults,
  timeoutMs = 1000,
): Promise<Ended & Told & { source: string; copy: string }> {
  const { source, copy } = await scene(t, layout);
  const warnings: ReceiveEvent[] = [];
  const retries: SendEvent[] = [];
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const ended = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, faults)).address,
    send: {
      timeoutMs,
      signal,
      onEvent: (event) => {
        if (event.event === 'retry') retries.push(event);
      },
    },
    receive: {
      timeoutMs,
      signal,
      onEvent: (event) => {
        if (event.event === 'warning') warnings.push(event);
      },
    },
  });
  // Whatever happened: under the final name there is the right memory, or nothing.
  if (existsSync(copy)) t.is(firstWrongPage(copy, layout), undefined);
  else t.not(codeOf(ended.received), undefined);
  return { ...ended, warnings, retries, source, copy };
}

/** The frames that a sender writes for SMALL, and where in its stream each begins. */
async function recorded(t: ExecutionContext): Promise<(RecordedFrame & { readonly start: number })[]> {
  const { source, copy } = await scene(t, SMALL);
  let wire: Wire | undefined;
  await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      wire = await Wire.open(t, receiver);
      return wire.address;
    },
  });
  let start = PREAMBLE.length;
  return framesOf(wire?.fromSender ?? Buffer.alloc(0)).map((frame) => {
    const placed = { ...frame, start };
    start += frame.headerBytes.length + frame.payload.length;
    return placed;
  });
}

function tableOf(header: FrameHeader): number {
  return header.type === FrameType.leaves ? leafTableSize(header) : header.length;
}

test.serial('a bit that flips every 16 MB costs what it hit, and each is told about', async (t) => {
  const layout: Layout = [{ fill: Fill.data, pages: 32 * 1024 }];
  const flips = flipEvery(16_000_000);
  const { sent, received, warnings, retries } = await over(t, layout, () => ({ toReceiver: [flips] }), 30_000);
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.true(flips.flips >= 8);
  t.is(warnings.length + retries.length, flips.flips);
});

test.serial('a flipped bit in a page costs its leaf', async (t) => {
  const leaves = (await recorded(t)).filter(({ header }) => header.type === FrameType.leaves);
  const [first] = leaves;
  if (first === undefined) {
    t.fail('nothing was sent');
    return;
  }
  const fault = flipAt(first.start + 32 + leafTableSize(first.header) + 70_000);
  const { sent, warnings, retries } = await over(t, SMALL, () => ({ toReceiver: [fault] }));
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(warnings.length, 1);
  t.is(retries.length, 0);
});

test.serial(
  'a flipped bit in a header, a table, a map or a control message costs the connection, which is made again',
  async (t) => {
    const places = (await recorded(t)).flatMap(({ header, start }) => [
      { what: `header of a frame of type ${header.type}`, at: start + 9 },
      ...(tableOf(header) > 0
        ? [{ what: `payload of a frame of type ${header.type}`, at: start + 32 + (tableOf(header) >> 1) }]
        : []),
    ]);
    t.true(places.length >= 12);
    for (const { what, at } of places) {
      const fault = flipAt(at);
      const { sent, retries, copy, source } = await over(t, SMALL, () => ({ toReceiver: [fault] }));
      t.is(codeOf(sent), undefined, `${what} at ${at}: ${messageOf(sent)}`);
      // What is flipped in the last word of all, the goodbye, is no matter of the sender's any more.
      if (fault.flips === 1 && retries.length === 0) t.true(readFileSync(copy).equals(readFileSync(source)), what);
    }
  },
);

test.serial('flipped bits in what the receiver says cost the connection, which is made again', async (t) => {
  for (let at = PREAMBLE.length; at < 220; at += 13) {
    const fault = flipAt(at);
    const { sent, received } = await over(t, SMALL, () => ({ toSender: [fault] }));
    t.is(codeOf(sent), undefined, `at ${at}: ${messageOf(sent)}`);
    t.is(codeOf(received), undefined, `at ${at}: ${messageOf(received)}`);
  }
});

test.serial('flipped bits in what the receiver holds cost the connection, which is made again', async (t) => {
  const { source, copy } = await scene(t, SMALL, 3);
  for (let at = 300; at < 30_000; at += 2311) {
    const fault = flipAt(at);
    const { sent } = await attempt({
      from: [source],
      to: [copy],
      via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toSender: [fault] }))).address,
      receive: { force: true, ...(existsSync(copy) && { reuse: [copy] }) },
    });
    t.is(codeOf(sent), undefined, `at ${at}: ${messageOf(sent)}`);
    t.is(firstWrongPage(copy, SMALL), undefined);
  }
});

test.serial('a preamble that is damaged on the way is an error, at once', async (t) => {
  for (let at = 0; at < PREAMBLE.length; at++) {
    const fault = flipAt(at);
    const { source, copy } = await scene(t, SMALL);
    const controller = new AbortController();
    const { sent } = await attempt({
      from: [source],
      to: [copy],
      via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toSender: [fault] }))).address,
      receive: {
        signal: controller.signal,
        onEvent: ({ event }) => {
          if (event === 'warning') controller.abort();
        },
      },
    });
    t.true(['E_VERSION', 'E_PROTOCOL'].includes(codeOf(sent) ?? ''), `at ${at}: ${messageOf(sent)}`);
    t.false(existsSync(copy));
  }
});

for (const [name, make] of [
  ['repeats', duplicate],
  ['swaps', reorder],
  ['loses', lose],
] as const) {
  test.serial(`a way that ${name} spans of bytes is got over`, async (t) => {
    const random = randomNumbers(name.length);
    for (let round = 0; round < 6; round++) {
      const fault = make(2000 + random(4 * MIB), 1 + random([7, 4096, 65536, MIB][round % 4] ?? 1));
      const { sent, received, warnings, retries } = await over(t, SMALL, () => ({ toReceiver: [fault] }));
      t.is(codeOf(sent), undefined, messageOf(sent));
      t.is(codeOf(received), undefined, messageOf(received));
      t.true(warnings.length + retries.length > 0);
    }
  });
}

test.serial('pages of one frame that change places are noticed', async (t) => {
  // Aligned to pages, so that nothing but the digests can tell.
  const first = (await recorded(t)).find(({ header }) => header.type === FrameType.leaves);
  if (first === undefined) {
    t.fail('nothing was sent');
    return;
  }
  const fault = reorder(first.start + 32 + leafTableSize(first.header) + 15 * 4096, 4096);
  const { sent, warnings } = await over(t, SMALL, () => ({ toReceiver: [fault] }));
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(warnings.length, 2);
});

test.serial('a way that stalls for less than the timeout costs only time', async (t) => {
  const fault = stallAfter(3 * MIB, 600);
  const { sent, retries } = await over(t, SMALL, () => ({ toReceiver: [fault] }), 2000);
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(retries.length, 0);
});

test.serial('a way that stalls for longer than the timeout costs the connection', async (t) => {
  const faults = [stallAfter(3 * MIB, 5000), stallAfter(100, 5000)] as const;
  const { sent, received, retries } = await over(
    t,
    SMALL,
    (n) => (n === 0 ? { toReceiver: [faults[0]], toSender: [faults[1]] } : {}),
    1000,
  );
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.is(retries[0]?.event === 'retry' && retries[0].code, 'E_TIMEOUT');
});

test.serial('a way that is slow is no reason to give up', async (t) => {
  const layout: Layout = [{ fill: Fill.data, pages: 256 }];
  const { sent, retries } = await over(t, layout, () => ({ toReceiver: [throttle(MIB / 2)] }), 1000);
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(retries.length, 0);
});

test.serial('sides whose timeouts differ hear enough of each other', async (t) => {
  const { source, copy } = await scene(t, [{ fill: Fill.data, pages: 512 }]);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [throttle(MIB / 2)] }))).address,
    send: { timeoutMs: 1000, retryMs: 0 },
    receive: { timeoutMs: 60_000 },
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
});

test.serial('a way on which no leaf ever arrives right ends the transfer after a few attempts', async (t) => {
  const flips = flipEvery(40_000);
  const layout: Layout = [{ fill: Fill.data, pages: 256 }];
  const { source, copy } = await scene(t, layout);
  const proxies: Proxy[] = [];
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      const proxy = await Proxy.open(t, receiver, () => ({ toReceiver: [flips] }));
      proxies.push(proxy);
      return proxy.address;
    },
  });
  t.is(codeOf(received), 'E_DIGEST_MISMATCH', messageOf(received));
  t.is(codeOf(sent), 'E_DIGEST_MISMATCH', messageOf(sent));
  t.false(existsSync(copy));
  t.true((proxies[0]?.bytes ?? Infinity) < 8 * MIB);
});
