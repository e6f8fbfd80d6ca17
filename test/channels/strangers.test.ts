import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { ErrorCode } from '@ballast/shared/errors';
import { DIGEST_SIZE } from '@ballast/shared/integrity';
import { PAGE_SIZE } from '@ballast/shared/memory';
import {
  Dialect,
  FrameType,
  MAX_CHANNELS,
  RangeEncoder,
  SESSION_SIZE,
  channelPreamble,
} from '@ballast/shared/protocol';
import { dial, type Address, type Connection } from '@ballast/shared/transport';
import { temporaryFolder } from '../support/folder.js';
import { failedClearly, receiverProgram } from '../support/programs.js';

/** Threads that Node.js may start by itself at any moment: its pool, and the kernel's counting of those that end. */
const NODES_OWN = 7;
const PATIENCE_MS = 30_000;

async function threadsOf(pid: number): Promise<number> {
  return Number(/^Threads:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** Waits until a program has so many threads. */
async function threadsAre(pid: number, holds: (threads: number) => boolean): Promise<number> {
  for (const deadline = Date.now() + PATIENCE_MS; ;) {
    const threads = await threadsOf(pid);
    if (holds(threads)) return threads;
    if (Date.now() > deadline) throw new Error(`still ${threads} threads`);
    await sleep(20);
  }
}

async function connectTo(t: ExecutionContext, to: Address, channel?: number): Promise<Connection> {
  const { socket, start } = dial({ ...to, tls: undefined, channel });
  await once(socket, 'connect');
  const connection = start({ timeoutMs: PATIENCE_MS, peer: 'the receiver' });
  t.teardown(async () => connection.close());
  return connection;
}

interface Hello {
  readonly session?: Buffer;
  readonly bytes?: number;
  readonly channels?: number;
}

/** A stranger's connection that says hello. By default it asks for all channels that there can be. */
async function sayHello(
  t: ExecutionContext,
  to: Address,
  { session = randomBytes(SESSION_SIZE), bytes = 1 << 20, channels = MAX_CHANNELS }: Hello = {},
): Promise<Connection> {
  const connection = await connectTo(t, to);
  await connection.sendControl({
    ...{ kind: 'hello', session, regions: [bytes], dialect: Dialect.ranges, compress: 'none', dataBytesAtMost: 0 },
    ...{ channels, live: false },
  });
  return connection;
}

test('a hello alone starts no thread, and strangers never get more of them than one session has', async (t) => {
  const { receiver, address } = await receiverProgram(t, [join(await temporaryFolder(t), 'copy.mem')]);
  const before = await threadsOf(receiver.pid);
  const first = await sayHello(t, address);
  t.is((await first.expect('welcome')).channels, MAX_CHANNELS);
  t.true((await threadsOf(receiver.pid)) <= before + NODES_OWN);
  await t.throwsAsync(async () => (await sayHello(t, address)).expect('welcome'), { message: /busy with another/ });

  // Those that want to be a channel get its thread, once each.
  const knocking: Socket[] = [];
  for (let n = 0; n < 4 * MAX_CHANNELS; n++) {
    const socket = connect(address.port, address.host);
    socket.on('error', () => undefined).resume();
    socket.write(channelPreamble(n % MAX_CHANNELS));
    knocking.push(socket);
  }
  const most = await threadsAre(receiver.pid, (threads) => threads >= before + MAX_CHANNELS);
  t.true(most <= before + MAX_CHANNELS + NODES_OWN, `${most} threads, ${before} before`);

  // None outlives the session, and none of the connections does.
  const closed = knocking.map(async (socket) => {
    if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  });
  await first.close();
  await threadsAre(receiver.pid, (threads) => threads <= before + NODES_OWN);
  await Promise.all(closed);
});

test('the larger a memory claims to be, the fewer channels it gets, down to two', async (t) => {
  for (const [tebibytes, channels] of [
    [8, MAX_CHANNELS],
    [24, 5],
    [64, 2],
  ] as const) {
    const { receiver, address } = await receiverProgram(t, ['--sink']);
    const connection = await sayHello(t, address, { bytes: tebibytes * 2 ** 40 });
    t.is((await connection.expect('welcome')).channels, channels);
    receiver.kill('SIGTERM');
    await receiver.ended;
  }
});

test('a sender whose channels tell of as many runs as are kept in lists ends in an error, not the process', async (t) => {
  const channels = 8;
  const blocks = 4096;
  const blockPages = 32768;
  const runsOfBlock = 256;
  // Enough for the lists of two channels, not of all.
  const env = { ...process.env, NODE_OPTIONS: '--max-old-space-size=40' };
  const { receiver, address } = await receiverProgram(t, ['--sink'], { env });
  const session = randomBytes(SESSION_SIZE);
  const bytes = blocks * blockPages * PAGE_SIZE;
  const first = await sayHello(t, address, { session, bytes, channels });
  t.is((await first.expect('welcome')).channels, channels);

  async function tellRuns(channel: number): Promise<void> {
    const connection = await connectTo(t, address, channel);
    await connection.sendControl({ kind: 'join', session });
    await connection.expect('joined');
    const encoder = new RangeEncoder();
    for (let n = 0; n < blocks * runsOfBlock; n++) {
      const page = Math.floor(n / runsOfBlock) * blockPages + (n % runsOfBlock) * 2 * channels + 2 * channel;
      encoder.add(page, page + 1);
      if (encoder.hasRoom && n < blocks * runsOfBlock - 1) continue;
      const { count, base } = encoder;
      await connection.send({ type: FrameType.freeRanges, count, base, checked: encoder.take() });
    }
    await connection.sendControl({ kind: 'finished' });
    await connection.closedByPeer();
  }
  await Promise.all(Array.from({ length: channels }, async (_, channel) => tellRuns(channel)));
  const nothing = { dataBytes: 0, zeroBytes: 0, freeBytes: 0, scannedPages: 0, askedPages: 0, whiteouts: 0 };
  await first.sendControl({
    ...{ kind: 'end', root: randomBytes(DIGEST_SIZE) },
    summary: {
      ...{ strategy: 'bitmap', ...nothing, mapBytes: 0, sentBytes: 0, storedBytes: 0 },
      mapDigest: '0'.repeat(2 * DIGEST_SIZE),
    },
  });
  const refused = await t.throwsAsync(first.next(), { message: /never told about the page/ });
  t.like(refused, { code: ErrorCode.PROTOCOL });
  failedClearly(t, await receiver.ended, 1, /never told about the page/);
});
