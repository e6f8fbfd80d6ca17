import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Dialect, MAX_CHANNELS, SESSION_SIZE, channelPreamble } from '@ballast/shared/protocol';
import { dial, type Address, type Connection } from '@ballast/shared/transport';
import { temporaryFolder } from '../support/folder.js';
import { receiverProgram } from '../support/programs.js';

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

/** A stranger's connection that says hello and asks for all channels that there can be. */
async function sayHello(t: ExecutionContext, to: Address): Promise<Connection> {
  const { socket, start } = dial({ ...to, tls: undefined, channel: undefined });
  await once(socket, 'connect');
  const connection = start({ timeoutMs: PATIENCE_MS, peer: 'the receiver' });
  t.teardown(async () => connection.close());
  await connection.sendControl({
    kind: 'hello',
    session: randomBytes(SESSION_SIZE),
    regions: [1 << 20],
    dialect: Dialect.ranges,
    compress: 'none',
    dataBytesAtMost: 0,
    channels: MAX_CHANNELS,
    live: false,
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
