import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import test from 'ava';
import { STRATEGY_NAMES, sendMemory, type SendEvent } from '@ballast/sender';
import type { ReceiveEvent } from '@ballast/receiver';
import { channelPreamble } from '@ballast/shared/protocol';
import { cutAfter, flipEvery, Proxy, stallAfter, throttle } from '../faults/proxy.js';
import { MIB, OVERHEAD, overwritePages, scene, takesPages } from '../faults/scenes.js';
import {
  Fill,
  PAGE,
  allocatedPages,
  firstWrongPage,
  writeBitmap,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { Program, eventsIn, receiverProgram, runSender } from '../support/programs.js';
import { transfer } from '../support/transfer.js';
import { sameButHeartbeats } from '../support/wire.js';

/** About 64 MiB of data in eight stretches of the channels, with all kinds of pages between, and a long hole. */
const MIXED: Layout = [
  ...Array.from({ length: 16 }, () => [
    { fill: Fill.data, pages: 800 },
    { fill: Fill.hole, pages: 100 },
    { fill: Fill.zero, pages: 63 },
    { fill: Fill.data, pages: 37, ballooned: true },
    { fill: Fill.speck, pages: 224 },
  ]).flat(),
  { fill: Fill.hole, pages: 40_000 },
  { fill: Fill.data, pages: 5 },
];
const DATA_PAGES = 16 * (800 + 224) + 5;

for (const strategy of STRATEGY_NAMES) {
  // Four, since so many store through mappings.
  test.serial(`four channels bring every page over with ${strategy}`, async (t) => {
    const { folder, source, copy } = await scene(t, MIXED);
    const bitmap = join(folder, 'balloon.bin');
    writeBitmap(bitmap, MIXED);
    const blocks = allocatedPages(source);
    const connected: (SendEvent | ReceiveEvent)[] = [];
    const onEvent = (event: SendEvent | ReceiveEvent): void => {
      if (event.event === 'connected') connected.push(event);
    };
    const { sent, received } = await transfer({
      from: [source],
      to: [copy],
      send: { strategy, channels: 4, balloon: [{ kind: 'holes' }, { kind: 'bitmap', path: bitmap }], onEvent },
      receive: { onEvent },
    });
    const knowsBalloon = strategy !== 'unmodified';
    t.is(firstWrongPage(copy, MIXED, 1, knowsBalloon), undefined);
    t.is(received.root, sent.root);
    sameButHeartbeats(t, received.wireBytes, sent.wireBytes);
    t.is(received.dataBytes, (DATA_PAGES + (knowsBalloon ? 0 : 16 * 37)) * PAGE);
    t.is(received.sentBytes, received.dataBytes);
    t.is(sent.memoryBytes, sent.dataBytes + sent.zeroBytes + sent.freeBytes);
    takesPages(t, copy, sent.dataBytes / PAGE);
    t.is(allocatedPages(source), blocks);
    t.deepEqual(
      connected.map((event) => event.event === 'connected' && event.channels),
      [4, 4],
    );
  });
}

test.serial('several memory files over two channels have the root that they have over one connection', async (t) => {
  const { folder, source } = await scene(t, MIXED, 6);
  const other = join(folder, 'other.mem');
  writeMemoryFile(other, [{ fill: Fill.speck, pages: 3001 }], 9);
  const roots = new Set<string>();
  for (const channels of [1, 2]) {
    const [first, second] = [join(folder, `first-${channels}`), join(folder, `second-${channels}`)];
    const { sent } = await transfer({ from: [source, other], to: [first, second], send: { channels } });
    t.is(firstWrongPage(first, MIXED), undefined);
    t.is(firstWrongPage(second, [{ fill: Fill.speck, pages: 3001 }], 9), undefined);
    roots.add(sent.root);
  }
  t.is(roots.size, 1);
});

test.serial('more channels than there is memory for are no harm', async (t) => {
  const layout: Layout = [
    { fill: Fill.hole, pages: 17 },
    { fill: Fill.data, pages: 1 },
  ];
  const { source, copy } = await scene(t, layout);
  const { sent, received } = await transfer({ from: [source], to: [copy], send: { channels: 16 } });
  t.is(firstWrongPage(copy, layout), undefined);
  t.is(received.root, sent.root);
});

test.serial('when one channel is cut, all begin again and send only what is missing', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  const retries: SendEvent[] = [];
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => {
      // Connection 0 is the session's, 1 and 2 its channels; one that is slow leaves enough to the one that is cut.
      const faults = [[], [throttle(24 * MIB)], [cutAfter(4 * MIB)]];
      const proxy = await Proxy.open(t, receiver, (n) => ({ toReceiver: faults[n] ?? [] }));
      return proxy.address;
    },
    send: {
      channels: 2,
      onEvent(event) {
        if (event.event === 'retry') retries.push(event);
      },
    },
  });
  t.is(retries.length, 1);
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.is(received.root, sent.root);
  takesPages(t, copy, sent.dataBytes / PAGE);
  t.true(sent.sentBytes < sent.dataBytes + 32 * MIB, `${sent.sentBytes} sent of ${sent.dataBytes}`);
});

test.serial('over channels, too, only pages that differ from an older copy are sent', async (t) => {
  const { folder, source, copy } = await scene(t, MIXED, 3);
  const old = join(folder, 'old.mem');
  writeMemoryFile(old, MIXED);
  overwritePages(
    old,
    Array.from({ length: 100 }, (_, index) => index * 100),
    Fill.data,
    77,
  );
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    send: { channels: 3 },
    receive: { reuse: [old] },
  });
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.is(received.root, sent.root);
  takesPages(t, copy, sent.dataBytes / PAGE);
  t.true(sent.sentBytes <= 100 * PAGE, `${sent.sentBytes} bytes of pages`);
  t.true(sent.wireBytes < sent.dataBytes * OVERHEAD, `${sent.wireBytes} bytes on the wire`);
});

test.serial('bits that flip on a channel are found, told, and the leaves sent again', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  const warnings: string[] = [];
  const flips = flipEvery(20 * MIB);
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [flips] }))).address,
    send: { channels: 2 },
    receive: {
      onEvent(event) {
        if (event.event === 'warning' || event.event === 'retry') warnings.push(event.message);
      },
    },
  });
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.is(received.root, sent.root);
  t.true(flips.flips > 0);
  t.true(warnings.length >= flips.flips, `${warnings.length} of ${flips.flips} were told: ${warnings.join('; ')}`);
});

test.serial(
  'a channel that is slow to say what it is has got heartbeats meanwhile, and joins all the same',
  async (t) => {
    const { source, copy } = await scene(t, MIXED);
    const retries: SendEvent[] = [];
    const { sent, received } = await transfer({
      from: [source],
      to: [copy],
      via: async (receiver) => {
        const proxy = await Proxy.open(t, receiver, (n) => ({ toReceiver: n > 0 ? [stallAfter(1, 900)] : [] }));
        return proxy.address;
      },
      send: {
        channels: 2,
        onEvent(event) {
          if (event.event === 'retry') retries.push(event);
        },
      },
    });
    t.deepEqual(retries, []);
    t.is(firstWrongPage(copy, MIXED), undefined);
    t.is(received.root, sent.root);
  },
);

test.serial('a stranger that wants to be a channel gets nothing, and disturbs nobody', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  const { receiver, to, address } = await receiverProgram(t, [copy]);
  const strangers: Socket[] = [];
  t.teardown(() => {
    for (const stranger of strangers) stranger.destroy();
  });
  const knock = async (n: number): Promise<void> => {
    const stranger = createConnection(address);
    strangers.push(stranger);
    stranger.on('error', () => undefined);
    await once(stranger, 'connect');
    stranger.write(channelPreamble(n % 16));
  };
  for (let n = 0; n < 20; n++) await knock(n);
  const sending = runSender(t, [source, '--to', to, '--channels', '3', '--json']);
  await receiver.event('connected');
  for (let n = 0; n < 20; n++) await knock(n);
  const [sent, received] = await Promise.all([sending, receiver.ended]);
  t.is(sent.status, 0, sent.stderr);
  t.is(received.status, 0, received.stderr);
  t.is(firstWrongPage(copy, MIXED), undefined);
  t.true(
    eventsIn(received.stdout).some(({ event, message }) => event === 'warning' && /channel/.test(String(message))),
  );
});

for (const [who, signal, status] of [
  ['sender', 'SIGINT', 130],
  ['receiver', 'SIGTERM', 143],
] as const) {
  test.serial(`a ${who} with channels that gets ${signal} ends soon, and tells the other side`, async (t) => {
    const { source, copy } = await scene(t, MIXED);
    const { receiver, address } = await receiverProgram(t, [copy]);
    const proxy = await Proxy.open(t, address, () => ({ toReceiver: [cutAfter(1000 * MIB)] }));
    const sender = Program.sender(t, [source, '--to', proxy.to, '--channels', '2', '--json']);
    await proxy.passed(8 * MIB);
    const began = Date.now();
    (who === 'sender' ? sender : receiver).kill(signal);
    const ends = await Promise.all([sender.ended, receiver.ended]);
    t.true(Date.now() - began < 15_000);
    t.deepEqual(
      ends.map((end) => end.status),
      who === 'sender' ? [status, 1] : [1, status],
    );
    t.regex(ends[1].stderr, /copy\.mem\.partial is kept/);
  });
}

test('a number of channels that makes no sense is wrong usage', async (t) => {
  const { source } = await scene(t, [{ fill: Fill.data, pages: 1 }]);
  for (const channels of ['0', '17', 'many', '-1', '2.5']) {
    t.is((await runSender(t, [source, '--to', '127.0.0.1:1', '--channels', channels])).status, 2, channels);
  }
  const to = { host: '127.0.0.1', port: 1 };
  await t.throwsAsync(sendMemory({ files: [source], to, channels: 17 }), { message: /expected 1 to 16/ });
});

test.serial('a sender closes a channel when the receiver has, which may still have much to read', async (t) => {
  const { source, copy } = await scene(t, MIXED);
  const ends: string[][] = [];
  const relay = createServer({ allowHalfOpen: true });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  t.teardown(() => relay.close());
  await transfer({
    from: [source],
    to: [copy],
    send: { channels: 2 },
    via(to) {
      relay.on('connection', (sender: Socket) => {
        const order: string[] = [];
        ends.push(order);
        const receiver = createConnection({ ...to, allowHalfOpen: true });
        for (const socket of [sender, receiver]) socket.on('error', () => socket.destroy());
        sender.on('end', () => order.push('sender')).pipe(receiver);
        receiver.on('end', () => order.push('receiver')).pipe(sender);
      });
      return Promise.resolve({ host: '127.0.0.1', port: (relay.address() as AddressInfo).port });
    },
  });
  const [, ...channels] = ends;
  t.deepEqual(channels, [
    ['receiver', 'sender'],
    ['receiver', 'sender'],
  ]);
});
