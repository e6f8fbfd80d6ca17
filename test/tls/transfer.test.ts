import { connect as connectTls } from 'node:tls';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sendMemory, STRATEGY_NAMES, type SendEvent } from '@ballast/sender';
import type { ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, contentsOf, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { Program, eventsIn, failedClearly, receiverProgram, runReceiver, runSender } from '../support/programs.js';
import { attempt, codeOf, listen, messageOf, orBallastError, transfer } from '../support/transfer.js';
import { sameButHeartbeats } from '../support/wire.js';
import { Proxy, flipAt, lose, type Fault } from '../faults/proxy.js';
import { Relay } from './relay.js';
import { makeCertificates, whyNoOpenssl } from './certificates.js';

const test = testUnless(await whyNoOpenssl());

const LAYOUT: Layout = [
  { fill: Fill.data, pages: 1500 },
  { fill: Fill.hole, pages: 3000 },
  { fill: Fill.zero, pages: 70 },
  { fill: Fill.speck, pages: 130 },
  { fill: Fill.data, pages: 3 },
];

test('with certificates on both sides every strategy brings the memory over', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const roots = new Set<string>();
  for (const strategy of STRATEGY_NAMES) {
    const { sent, received } = await transfer({
      from: [source],
      to: [copy],
      send: { strategy, tls: { directory: senderDirectory } },
      receive: { force: true, tls: { directory: receiverDirectory } },
    });
    t.is(firstWrongPage(copy, LAYOUT), undefined, strategy);
    t.is(received.root, sent.root);
    sameButHeartbeats(t, received.wireBytes, sent.wireBytes);
    roots.add(sent.root);
  }
  t.is(roots.size, 1);
});

test('channels speak TLS, too', async (t) => {
  const folder = await temporaryFolder(t, 64 << 20);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  const layout: Layout = [...LAYOUT, { fill: Fill.data, pages: 5000 }];
  writeMemoryFile(source, layout);
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    via: async (receiver) => (await Proxy.open(t, receiver, () => ({ toReceiver: [noPlain(t)] }))).address,
    send: { channels: 3, tls: { directory: senderDirectory, hostname: '127.0.0.1' } },
    receive: { tls: { directory: receiverDirectory } },
  });
  t.is(firstWrongPage(copy, layout), undefined);
  t.is(received.root, sent.root);
  sameButHeartbeats(t, received.wireBytes, sent.wireBytes);
});

/** Asserts that the first page does not go by in the clear. */
function noPlain(t: ExecutionContext): Fault {
  return {
    pass(chunk) {
      t.is(chunk.indexOf(contentsOf([{ fill: Fill.data, pages: 1 }], 1, false).subarray(0, 64)), -1);
      return [chunk];
    },
  };
}

test('the two programs do, too, by the address and by a name', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, LAYOUT);
  for (const [name, options] of [
    ['by-address.mem', []],
    ['by-name.mem', ['--tls-hostname', 'host-b.test']],
  ] as const) {
    const copy = join(folder, name);
    const { receiver, to } = await receiverProgram(t, [
      ...[copy, '--tls-dir', receiverDirectory],
      ...['--tls-allow', 'host-q.test', '--tls-allow', 'a.alias.test'],
    ]);
    const sent = await runSender(t, [source, '--to', to, '--tls-dir', senderDirectory, '--json', ...options]);
    t.is(sent.status, 0, sent.stderr);
    const received = await receiver.ended;
    t.is(received.status, 0, received.stderr);
    t.is(eventsIn(received.stdout).at(-1)?.['root'], eventsIn(sent.stdout).at(-1)?.['root']);
    t.is(firstWrongPage(copy, LAYOUT), undefined, name);
  }
});

test('nothing of the memory is readable on the wire', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const relays: Relay[] = [];
  const { sent } = await transfer({
    from: [source],
    to: [copy],
    send: { tls: { directory: senderDirectory } },
    receive: { tls: { directory: receiverDirectory } },
    async via(receiver) {
      const relay = await Relay.open(t, receiver);
      relays.push(relay);
      return relay.address;
    },
  });
  const bytes = relays[0]?.recorded ?? Buffer.alloc(0);
  t.true(bytes.length > sent.dataBytes);
  t.false(bytes.includes('BALLAST'));
  const memory = await readFile(source);
  t.false(bytes.includes(memory.subarray(64, 96)));
});

test('what is spoken is TLS 1.3', async (t) => {
  const folder = await temporaryFolder(t);
  const { authority, client, receiverDirectory } = await makeCertificates(folder);
  const ending = new AbortController();
  const waiting = await listen(t, {
    files: [join(folder, 'copy.mem')],
    tls: { directory: receiverDirectory },
    signal: ending.signal,
  });
  const socket = connectTls({
    ...waiting.address,
    ca: await readFile(authority.cert),
    cert: await readFile(client.cert),
    key: await readFile(client.key),
  });
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  t.is(socket.getProtocol(), 'TLSv1.3');
  t.true(socket.authorized);
  socket.destroy();
  ending.abort();
  t.is(codeOf(await orBallastError(waiting.result)), 'E_ABORTED');
});

test('a connection that is cut in the middle is made again, and the transfer goes on from what is there', async (t) => {
  const folder = await temporaryFolder(t, 192 << 20);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  const large: Layout = [{ fill: Fill.data, pages: 12_000 }];
  writeMemoryFile(source, large);
  const events: SendEvent[] = [];
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    send: { tls: { directory: senderDirectory }, onEvent: (event) => events.push(event) },
    receive: { tls: { directory: receiverDirectory } },
    via: async (receiver) => (await Relay.open(t, receiver, { cutAfter: 24 << 20 })).address,
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.is(firstWrongPage(copy, large), undefined);
  t.is(events.filter(({ event }) => event === 'retry').length, 1);
  t.deepEqual(
    events.flatMap((event) => (event.event === 'connected' ? [event.resumes] : [])),
    [false, true],
  );
  // What had arrived is not sent again, but for what was on the way.
  if (!(sent instanceof Error)) t.true(sent.sentBytes < 1.5 * sent.dataBytes, String(sent.sentBytes));
});

test('over TLS a receiver that is killed and started again is found by the sender', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const receive = [copy, '--tls-dir', receiverDirectory];
  const { receiver, to } = await receiverProgram(t, receive);
  const send = [source, '--to', to, '--tls-dir', senderDirectory, '--bandwidth', '4MiB', '--json'];
  const sender = Program.sender(t, send);
  await sender.event('connected');
  receiver.kill('SIGKILL');
  await receiver.ended;
  // The second time at the latest nobody listens.
  t.is((await sender.event('retry', 1))['code'], 'E_CONNECT');
  const again = Program.receiver(t, [...receive, '--listen', to]);
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.is((await again.ended).status, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

for (const [what, fault, way] of [
  ['a bit that flips on its way to the receiver', flipAt(5 << 20), 'toReceiver'],
  ['bytes that get lost on their way to the receiver', lose(5 << 20, 100), 'toReceiver'],
  ['a bit that flips on its way to the sender', flipAt(9000), 'toSender'],
] as const) {
  test(`over TLS ${what}: the connection is made again`, async (t) => {
    const folder = await temporaryFolder(t, 64 << 20);
    const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    const older = join(folder, 'older.mem');
    const layout: Layout = [{ fill: Fill.data, pages: 3000 }];
    writeMemoryFile(source, layout);
    writeMemoryFile(older, layout, 2);
    const events: SendEvent[] = [];
    const { sent, received } = await attempt({
      from: [source],
      to: [copy],
      send: { tls: { directory: senderDirectory }, onEvent: (event) => events.push(event) },
      // What it holds is what it has to tell the sender.
      receive: { tls: { directory: receiverDirectory }, reuse: [older], timeoutMs: 10_000 },
      via: async (receiver) => (await Proxy.open(t, receiver, () => ({ [way]: [fault] }))).address,
    });
    t.is(fault.flips, 1);
    t.is(codeOf(sent), undefined, messageOf(sent));
    t.is(codeOf(received), undefined, messageOf(received));
    t.is(firstWrongPage(copy, layout), undefined);
    t.is(events.filter(({ event }) => event === 'retry').length, 1);
  });
}

test('beyond this machine a receiver wants TLS, or to be told that none is needed', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory } = await makeCertificates(folder);
  const copy = join(folder, 'copy.mem');
  for (const address of ['0.0.0.0:0', '[::]:0', '192.0.2.1:0', 'host-b.test:0']) {
    failedClearly(
      t,
      await runReceiver(t, [copy, '--listen', address]),
      2,
      /can be reached from other machines, and nothing authenticates them; give certificates with --tls-dir, .* --insecure/,
    );
  }
  for (const options of [['--insecure'], ['--tls-dir', receiverDirectory]]) {
    const receiver = Program.receiver(t, [copy, '--listen', '0.0.0.0:0', '--json', ...options]);
    t.is((await receiver.event('listening'))['host'], '0.0.0.0');
    receiver.kill('SIGTERM');
    t.is((await receiver.ended).status, 143);
  }
});

test('options about certificates without certificates are wrong usage', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, LAYOUT);
  failedClearly(
    t,
    await runReceiver(t, [join(folder, 'copy.mem'), '--tls-allow', 'host-a.test']),
    2,
    /without --tls-dir there are none; add --tls-dir/,
  );
  failedClearly(
    t,
    await runSender(t, [source, '--to', '127.0.0.1:9', '--tls-hostname', 'host-b.test']),
    2,
    /without --tls-dir there is none; add --tls-dir/,
  );
});

test('a sender that is interrupted over TLS says so to the receiver', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, [{ fill: Fill.data, pages: 12_000 }]);
  const waiting = await listen(t, { files: [copy], tls: { directory: receiverDirectory } });
  const relay = await Relay.open(t, waiting.address, { holdAfter: 1 << 20 });
  const interruption = new AbortController();
  const sending = orBallastError(
    sendMemory({
      files: [source],
      to: relay.address,
      tls: { directory: senderDirectory },
      signal: interruption.signal,
    }),
  );
  await relay.held;
  interruption.abort();
  relay.release();
  t.is(codeOf(await sending), 'E_ABORTED');
  const received = await orBallastError(waiting.result);
  t.is(codeOf(received), 'E_ABORTED', messageOf(received));
});
