import { Socket, connect, isIP, type OnReadOpts } from 'node:net';
import { checkServerIdentity, connect as connectTls, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { FrameDecoder, channelPreamble } from '../protocol/index.js';
import { Connection, type ConnectionOptions } from './connection.js';
import { describeSubject, explainVerification } from './tls-identity.js';

/** Where the next bytes are to be written, and what is told when they are there: false stops the reading. */
interface Onread extends OnReadOpts {
  readonly buffer: () => Uint8Array;
  readonly callback: (count: number, buffer: Uint8Array) => boolean;
}

/**
 * How bytes get from a socket into the decoder. Node's `onread` option lets the kernel write into a buffer of ours, so
 * page bytes land where they are used, and no garbage is made. Only a socket made by oneself takes the option, so an
 * accepted connection is moved to a new Socket; that needs a private field, `_handle`. A TLS socket gets what the option
 * would set. Where these fields are not what we know, the public way (`data` events, one more copy) is used.
 */
class DirectReads {
  readonly decoder = new FrameDecoder();
  readonly #overrun: Buffer | undefined;
  #connection: Connection | undefined;

  /** @param overrun where bytes go that come although they were not wanted; undefined where none do */
  constructor(overrun?: Buffer) {
    this.#overrun = overrun;
  }

  readonly onread: Onread = {
    buffer: () => {
      if (this.#overrun !== undefined && this.#connection?.wantsBytes === false) return this.#overrun;
      return this.#connection?.target() ?? this.decoder.target();
    },
    callback: (count, buffer) => {
      if (this.#connection === undefined) return false;
      if (buffer === this.#overrun) this.#connection.receivedChunk(Buffer.from(buffer.subarray(0, count)));
      else this.#connection.received(count);
      return this.#connection.wantsBytes;
    },
  };

  attach(connection: Connection): Connection {
    this.#connection = connection;
    return connection;
  }
}

/** What a TLS record holds at most. */
const RECORD_BYTES = 16384;

/** How a connection that a side makes itself is to be secured. */
export interface TlsDialOptions {
  readonly identity: SecureContextOptions;
  /** The name that the other side's certificate must be for; the host by default. */
  readonly hostname?: string;
}

/** A connection in the making. */
export interface Dialling {
  readonly socket: Socket;
  /** Event of the socket that says it is ready for `start`. */
  readonly ready: 'connect' | 'secureConnect';
  /** Makes a connection of it. */
  readonly start: (options: ConnectionOptions) => Connection;
  /** Why the other side is not whom we trust, in words; undefined when it is. To be asked when it is ready. */
  readonly distrust: () => string | undefined;
}

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  readonly tls: TlsDialOptions | undefined;
  /** Which channel the connection is to be of a session that another one has begun; undefined when it begins one. */
  readonly channel: number | undefined;
  /** Milliseconds for each address of a host that has several, but for the last, which has all the time there is. */
  readonly addressMs?: number;
}

/**
 * Node gives each address 250 ms, and so would not reach a host that is farther away, nor one whose first packet got lost:
 * the kernel sends that again after a second.
 */
export const ADDRESS_MS = 2500;

/** Connects. The socket is returned at once; listen to its `ready` event and to `error`. Nothing is read before `start`. */
export function dial({ host, port, tls, channel, addressMs = ADDRESS_MS }: DialOptions): Dialling {
  const reads = new DirectReads();
  const socket = connect({
    host,
    port,
    autoSelectFamilyAttemptTimeout: addressMs,
    ...(tls === undefined ? { onread: reads.onread } : {}),
  });
  if (channel !== undefined) socket.write(channelPreamble(channel));
  if (tls !== undefined) return secure(socket, host, tls);
  socket.pause();
  return {
    socket,
    ready: 'connect',
    start(options) {
      const connection = reads.attach(new Connection(socket, reads.decoder, options));
      socket.resume();
      return connection;
    },
    distrust: () => undefined,
  };
}

/**
 * The certificate is judged here and not by Node, which would close the connection without a word to the other side.
 */
function secure(plain: Socket, host: string, { identity, hostname }: TlsDialOptions): Dialling {
  const name = hostname ?? host;
  const socket = connectTls({
    socket: plain,
    ...identity,
    ...(isIP(name) === 0 ? { servername: name } : {}),
    checkServerIdentity: (_host, certificate) => checkServerIdentity(name, certificate),
    rejectUnauthorized: false,
  });
  // What happens to the plain socket happens to the secure one, too.
  plain.on('error', (error) => socket.destroy(error));
  return {
    socket,
    ready: 'secureConnect',
    start: (options) => secured(socket, options),
    distrust() {
      if (socket.authorized) return undefined;
      // Typed as an error, but its code is what is there.
      const reason = String(socket.authorizationError);
      if (!reason.includes('ALTNAME')) return explainVerification(reason);
      return `is for ${describeSubject(socket.getPeerCertificate())} and not for ${name}`;
    },
  };
}

/** Makes a connection of a socket that a server with `pauseOnConnect` has accepted. */
export function accept(accepted: Socket, options: ConnectionOptions): Connection {
  const handle = detachHandle(accepted);
  if (handle === undefined) return byDataEvents(accepted, options);
  const reads = new DirectReads();
  const socket = new Socket({ handle, onread: reads.onread, manualStart: true } as ConstructorParameters<
    typeof Socket
  >[0]);
  const connection = reads.attach(new Connection(socket, reads.decoder, options));
  socket.resume();
  return connection;
}

/** Makes a connection of the descriptor of a connected TCP socket, which it then owns. */
export function adopt(fd: number, options: ConnectionOptions): Connection {
  const reads = new DirectReads();
  const socket = new Socket({
    fd,
    onread: reads.onread,
    readable: true,
    writable: true,
    manualStart: true,
  } as ConstructorParameters<typeof Socket>[0]);
  const connection = reads.attach(new Connection(socket, reads.decoder, options));
  socket.resume();
  return connection;
}

/**
 * Makes a connection of a TLS socket whose handshake is done. Node decrypts all that it has read, 64 KiB at most, also after
 * it was told to stop.
 */
export function secured(socket: TLSSocket, options: ConnectionOptions): Connection {
  const reads = new DirectReads(Buffer.alloc(RECORD_BYTES));
  if (!redirect(socket, reads.onread)) return byDataEvents(socket, options);
  const connection = reads.attach(new Connection(socket, reads.decoder, options));
  for (let early: unknown = socket.read(); early instanceof Buffer; early = socket.read())
    connection.receivedChunk(early);
  socket.resume();
  return connection;
}

/** Makes a connection of any stream socket, by its `data` events. */
export function byDataEvents(socket: Socket, options: ConnectionOptions): Connection {
  const connection = new Connection(socket, new FrameDecoder(), options);
  socket.on('data', (chunk: Buffer) => {
    connection.receivedChunk(chunk);
  });
  // Listening alone does not wake a socket that was accepted paused, and a side that only sends must hear an abort, too.
  socket.resume();
  return connection;
}

/**
 * Sets on a socket what the `onread` option sets when it is made.
 * @returns false where Node has changed, and nothing was done
 */
function redirect(socket: Socket, { buffer, callback }: Onread): boolean {
  const owner = socket as unknown as {
    [field: symbol]: unknown;
    readonly _handle?: { readonly useUserBuffer?: (buffer: Uint8Array) => void } | null;
  };
  const [first, next, taken] = ['kBuffer', 'kBufferGen', 'kBufferCb'].map((name) =>
    Object.getOwnPropertySymbols(owner).find(({ description }) => description === name),
  );
  if (typeof owner._handle?.useUserBuffer !== 'function') return false;
  if (first === undefined || next === undefined || taken === undefined || owner[first] !== null) return false;
  const target = buffer();
  owner[first] = target;
  owner[next] = buffer;
  owner[taken] = callback;
  owner._handle.useUserBuffer(target);
  return true;
}

/** Takes the libuv handle out of an accepted socket, which then counts as closed; undefined where Node has changed. */
function detachHandle(socket: Socket): object | undefined {
  const owner = socket as unknown as { _handle?: { useUserBuffer?: unknown } | null };
  const handle = owner._handle;
  if (handle === null || handle === undefined || typeof handle.useUserBuffer !== 'function') return undefined;
  owner._handle = null;
  socket.destroy();
  return handle;
}
