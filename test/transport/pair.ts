import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TLSSocket, connect as connectTls, createSecureContext, type SecureContextOptions } from 'node:tls';
import type { ExecutionContext } from 'ava';
import { PREAMBLE, encodeControl, encodeHeader, FrameType, type ControlMessage } from '@ballast/shared/protocol';
import {
  accept,
  byDataEvents,
  dial,
  secured,
  type Connection,
  type ConnectionOptions,
} from '@ballast/shared/transport';
import { crc32 } from 'node:zlib';
import { Authority, whyNoOpenssl } from '../tls/certificates.js';

/** How the bytes get from the sockets into the decoders of both sides. */
export type Reads = 'straight' | 'by data events' | 'over TLS';

/** Who the side is that accepts a TLS connection, and whom the other trusts. */
interface Identities {
  readonly server: SecureContextOptions;
  readonly client: SecureContextOptions;
}

const identities = (await whyNoOpenssl()) === undefined ? await makeIdentities() : undefined;
if (identities === undefined) console.log('connections over TLS are not tested: openssl is not installed');

export const READS: readonly Reads[] = [
  'straight',
  'by data events',
  ...(identities === undefined ? [] : ['over TLS' as const]),
];

async function makeIdentities(): Promise<Identities> {
  const folder = await mkdtemp(join(tmpdir(), 'ballast-test-'));
  try {
    const authority = await Authority.make(folder, 'Ballast test authority');
    const subject = { commonName: 'host-b', usage: 'serverAuth', alternatives: ['IP:127.0.0.1'] } as const;
    const { cert, key } = await authority.issue(subject);
    return {
      server: { cert: await readFile(cert), key: await readFile(key), minVersion: 'TLSv1.3' },
      client: { ca: await readFile(authority.cert), minVersion: 'TLSv1.3' },
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Which of the identities a test over TLS has. */
function identity(side: keyof Identities): SecureContextOptions {
  if (identities === undefined) throw new Error('there are no certificates');
  return identities[side];
}

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

/**
 * Two connections that talk to each other.
 * @param change done to the TLS socket that was accepted before a connection is made of it
 */
export async function openPair(
  t: ExecutionContext,
  reads: Reads,
  timeouts: Timeouts = {},
  change?: (socket: TLSSocket) => void,
): Promise<Pair> {
  const { port, accepted: incoming } = await listen(t);
  const ofDialled = { timeoutMs: timeouts.dialledMs ?? PATIENT_MS, peer: 'the receiver' };
  const ofAccepted = { timeoutMs: timeouts.acceptedMs ?? PATIENT_MS, peer: 'the sender' };
  const dialling =
    reads === 'by data events'
      ? undefined
      : dial({
          host: '127.0.0.1',
          port,
          tls: reads === 'over TLS' ? { identity: identity('client') } : undefined,
          channel: undefined,
        });
  const socket = dialling?.socket ?? connect(port, '127.0.0.1');
  const ready = once(socket, dialling?.ready ?? 'connect');
  const accepted = await acceptedBy(reads, await incoming, ofAccepted, change);
  await ready;
  const dialled = dialling?.start(ofDialled) ?? byDataEvents(socket, ofDialled);
  t.teardown(async () => {
    socket.destroy();
    await Promise.all([dialled.close(), accepted.close()]);
  });
  return { dialled, accepted, socket };
}

async function acceptedBy(
  reads: Reads,
  socket: Socket,
  options: ConnectionOptions,
  change?: (socket: TLSSocket) => void,
): Promise<Connection> {
  switch (reads) {
    case 'straight':
      return accept(socket, options);
    case 'by data events':
      return byDataEvents(socket, options);
    case 'over TLS': {
      const secure = new TLSSocket(socket, { isServer: true, secureContext: createSecureContext(identity('server')) });
      await once(secure, 'secure');
      change?.(secure);
      return secured(secure, options);
    }
  }
}

/** A connection and a peer that writes, or does not write, what the test wants. */
export interface WithStranger {
  readonly connection: Connection;
  readonly stranger: Socket;
  /** Ends the TCP connection with a reset. */
  readonly reset: () => void;
  /** All that the connection has sent to the stranger, who reads it. */
  readonly heard: () => Buffer;
}

export async function openWithStranger(
  t: ExecutionContext,
  reads: Reads,
  timeoutMs: number = PATIENT_MS,
): Promise<WithStranger> {
  const { port, accepted: incoming } = await listen(t);
  const plain = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  plain.on('error', () => undefined);
  const stranger =
    reads === 'over TLS' ? connectTls({ socket: plain, host: '127.0.0.1', ...identity('client') }) : plain;
  const chunks: Buffer[] = [];
  stranger.on('data', (chunk: Buffer) => chunks.push(chunk));
  stranger.on('error', () => undefined);
  const options = { timeoutMs, peer: 'the stranger' };
  const connection = await acceptedBy(reads, await incoming, options);
  t.teardown(async () => {
    stranger.destroy();
    await connection.close();
  });
  return { connection, stranger, reset: () => plain.resetAndDestroy(), heard: () => Buffer.concat(chunks) };
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
