import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { ExecutionContext } from 'ava';
import { PREAMBLE, encodeControl, encodeHeader, FrameType, type ControlMessage } from '@ballast/shared/protocol';
import { accept, byDataEvents, dial, type Connection } from '@ballast/shared/transport';
import { crc32 } from 'node:zlib';

/** How the bytes get from the sockets into the decoders of both sides. */
export const READS = ['straight', 'by data events'] as const;
export type Reads = (typeof READS)[number];

/** Far longer than any test: a test that is not about silence must not see it. */
const PATIENT_MS = 60_000;

export interface Timeouts {
  readonly dialledMs?: number;
  readonly acceptedMs?: number;
}

/** Two ends of one connection over the loopback. */
export interface Pair {
  readonly dialled: Connection;
  readonly accepted: Connection;
  /** The socket of the side that dialled. */
  readonly socket: Socket;
}

/** The next socket that connects to a server of its own, paused, and the port to connect to. */
async function listen(t: ExecutionContext): Promise<{ port: number; accepted: Promise<Socket> }> {
  const server = createServer({ pauseOnConnect: true });
  const accepted = once(server, 'connection').then(([socket]) => socket as Socket);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return { port: address.port, accepted };
}

/** Two connections that talk to each other. */
export async function openPair(t: ExecutionContext, reads: Reads, timeouts: Timeouts = {}): Promise<Pair> {
  const { port, accepted: incoming } = await listen(t);
  const ofDialled = { timeoutMs: timeouts.dialledMs ?? PATIENT_MS, peer: 'the receiver' };
  const ofAccepted = { timeoutMs: timeouts.acceptedMs ?? PATIENT_MS, peer: 'the sender' };
  const dialling =
    reads === 'straight' ? dial({ host: '127.0.0.1', port, tls: undefined, channel: undefined }) : undefined;
  const socket = dialling?.socket ?? connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const dialled = dialling?.start(ofDialled) ?? byDataEvents(socket, ofDialled);
  const other = await incoming;
  const accepted = reads === 'straight' ? accept(other, ofAccepted) : byDataEvents(other, ofAccepted);
  t.teardown(async () => {
    socket.destroy();
    await Promise.all([dialled.close(), accepted.close()]);
  });
  return { dialled, accepted, socket };
}

/** A connection and a peer that writes, or does not write, what the test wants. */
export interface WithStranger {
  readonly connection: Connection;
  readonly stranger: Socket;
  /** All that the connection has sent to the stranger, who reads it. */
  readonly heard: () => Buffer;
}

export async function openWithStranger(
  t: ExecutionContext,
  reads: Reads,
  timeoutMs: number = PATIENT_MS,
): Promise<WithStranger> {
  const { port, accepted: incoming } = await listen(t);
  const stranger = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const chunks: Buffer[] = [];
  stranger.on('data', (chunk: Buffer) => chunks.push(chunk));
  stranger.on('error', () => undefined);
  const options = { timeoutMs, peer: 'the stranger' };
  const socket = await incoming;
  const connection = reads === 'straight' ? accept(socket, options) : byDataEvents(socket, options);
  t.teardown(async () => {
    stranger.destroy();
    await connection.close();
  });
  return { connection, stranger, heard: () => Buffer.concat(chunks) };
}

/** The bytes of control messages as the first of a direction, without the preamble. */
export function controlFrames(messages: readonly ControlMessage[], firstSequence = 0): Buffer {
  return Buffer.concat(
    messages.flatMap((message, index) => {
      const payload = encodeControl(message);
      const header = encodeHeader({
        type: FrameType.control,
        region: 0,
        sequence: firstSequence + index,
        length: payload.length,
        count: 0,
        base: 0,
        payloadChecksum: crc32(payload),
      });
      return [header, payload];
    }),
  );
}

/** The same behind a preamble. */
export function greeting(...messages: readonly ControlMessage[]): Buffer {
  return Buffer.concat([PREAMBLE, controlFrames(messages)]);
}

export async function pause(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Whether a promise has settled after so many milliseconds. */
export async function settlesWithin(promise: Promise<unknown>, milliseconds: number): Promise<boolean> {
  const settled = promise.then(
    () => true,
    () => true,
  );
  return await Promise.race([settled, pause(milliseconds).then(() => false)]);
}
