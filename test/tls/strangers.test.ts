import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import ava from 'ava';
import type { ExecutionContext } from 'ava';
import { FrameType, MAX_PAYLOAD, PREAMBLE } from '@ballast/shared/protocol';
import type { Address } from '@ballast/shared/transport';
import { Type, controlFrame, encodeFrame, wireFrame } from '../fuzz/wire-frame.js';
import { temporaryFolder } from '../support/folder.js';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { Program, eventsIn, receiverProgram, runSender } from '../support/programs.js';
import { makeCertificates, whyNoOpenssl } from './certificates.js';
import { Relay } from './relay.js';

const test = testUnless(await whyNoOpenssl());

const STRANGERS = 1000;
/** How much a receiver may grow by them. One frame of theirs in memory each would be ten times as much. */
const GROWTH_MIB = 96;
const LAYOUT: Layout = [{ fill: Fill.data, pages: 12_000 }];

/** The beginning of a TLS handshake record, the beginning of our preamble, and nothing. */
const BEGINNINGS = [
  Buffer.from([0x16, 3, 1, 2, 0, 1]),
  Buffer.alloc(0),
  Buffer.from('BALLA'),
  Buffer.alloc(0),
] as const;

/** A heartbeat, and a promise of the largest frame that there is. */
const LARGE_FRAME = Buffer.concat([
  PREAMBLE,
  encodeFrame(controlFrame({ kind: 'heartbeat' }), 0),
  encodeFrame(
    { ...wireFrame(Type.leaves, Buffer.alloc(0), { count: 1 }), lengthLie: MAX_PAYLOAD[FrameType.leaves] },
    1,
  ),
]);

/** Connections that say nothing, or begin to say something, and then stay. */
async function crowd(
  t: ExecutionContext,
  to: Address,
  count: number,
  beginnings: readonly Buffer[] = BEGINNINGS,
): Promise<void> {
  const sockets: Socket[] = [];
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (let n = 0; n < count; n++) {
    const socket = connect(to.port, to.host);
    sockets.push(socket);
    // They are dropped when there are too many of them: that is the point.
    socket.on('error', () => undefined).resume();
    await once(socket, 'connect');
    socket.write(beginnings[n % beginnings.length] ?? '');
  }
}

/** Resident memory of a process, in MiB. */
async function residentMiB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

async function amongStrangers(
  t: ExecutionContext,
  receive: readonly string[],
  send: readonly string[],
  folder: string,
): Promise<void> {
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const { receiver, address } = await receiverProgram(t, [copy, ...receive]);
  const before = await residentMiB(receiver.pid);
  await crowd(t, address, STRANGERS);
  // As many connections as it allows are still open.
  const grown = (await residentMiB(receiver.pid)) - before;
  t.true(grown < GROWTH_MIB, `it grew by ${Math.round(grown)} MiB`);

  // A crowd comes in the middle of the transfer, too: whoever is being served is no stranger.
  const relay = await Relay.open(t, address, { holdAfter: 4 << 20 });
  const started = performance.now();
  const sender = Program.sender(t, [source, '--to', `127.0.0.1:${relay.address.port}`, '--json', ...send]);
  await relay.held;
  const letIn = performance.now() - started;
  t.true(letIn < 20_000, `the sender got in after ${Math.round(letIn)} ms`);
  await crowd(t, address, STRANGERS);
  relay.release();
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.deepEqual(
    eventsIn(sent.stdout).filter(({ event }) => event === 'retry'),
    [],
  );
  // It does not wait for strangers before it ends.
  const published = performance.now();
  const received = await receiver.ended;
  t.is(received.status, 0, received.stderr.slice(-2000));
  t.true(performance.now() - published < 15_000, `it ended ${Math.round(performance.now() - published)} ms later`);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
}

ava.serial('a thousand strangers keep no sender out', async (t) => {
  await amongStrangers(t, [], [], await temporaryFolder(t, 192 << 20));
});

ava.serial('strangers that announce large frames get no memory for them', async (t) => {
  const { receiver, address } = await receiverProgram(t, [join(await temporaryFolder(t), 'copy.mem')]);
  const before = await residentMiB(receiver.pid);
  await crowd(t, address, STRANGERS, [LARGE_FRAME]);
  const grown = (await residentMiB(receiver.pid)) - before;
  t.true(grown < GROWTH_MIB, `it grew by ${Math.round(grown)} MiB`);
  const { message } = await receiver.event('warning');
  t.regex(String(message), /a frame of type 2 before it had said what it wants$/);
});

test('a thousand strangers keep no sender out over TLS', async (t) => {
  const folder = await temporaryFolder(t, 192 << 20);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  await amongStrangers(t, ['--tls-dir', receiverDirectory], ['--tls-dir', senderDirectory], folder);
});

test('a stranger that says nothing has ten seconds, and then the receiver says why it turned it away', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 2 }]);

  async function turnsAway(
    name: string,
    receive: string[],
    send: string[],
    expected: readonly RegExp[],
  ): Promise<void> {
    const { receiver, address, to } = await receiverProgram(t, [join(folder, name), ...receive]);
    await crowd(t, address, BEGINNINGS.length);
    await sleep(11_000);
    const reasons: string[] = [];
    for (let n = 0; n < BEGINNINGS.length; n++) {
      const { code, message } = await receiver.event('warning', n);
      reasons.push(`${String(code)} ${String(message).replace(/127\.0\.0\.1:\d+/g, 'ADDRESS')}`);
    }
    t.deepEqual(
      expected.filter((reason) => !reasons.some((found) => reason.test(found))),
      [],
      reasons.join('\n'),
    );
    const sent = await runSender(t, [source, '--to', to, ...send]);
    t.is(sent.status, 0, sent.stderr);
    t.is((await receiver.ended).status, 0);
  }

  const silent = /^E_TIMEOUT turned away a connection from ADDRESS: it connected and said nothing for 10 s$/;
  await Promise.all([
    turnsAway('plain.mem', [], [], [silent, /^E_TLS .*: it looks like TLS; give both sides the same TLS options$/]),
    turnsAway(
      'tls.mem',
      ['--tls-dir', receiverDirectory],
      ['--tls-dir', senderDirectory],
      [silent, /^E_TLS .*: it did not finish the TLS handshake in time$/, /^E_TLS .*: the sender does not speak TLS; /],
    ),
  ]);
});
