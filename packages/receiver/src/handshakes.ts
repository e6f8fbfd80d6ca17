import type { Socket } from 'node:net';
import { createServer, type Server, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { PREAMBLE, channelOf, mayBeChannel } from '@ballast/shared/protocol';
import { explainHandshake } from '@ballast/shared/transport';

export interface HandshakeOptions {
  readonly identity: SecureContextOptions;
  /** Milliseconds for the first byte, and then for the handshake. */
  readonly timeoutMs: number;
  /** Handshakes at once; beyond that the oldest is dropped, so that idle strangers keep nobody out. */
  readonly atMost: number;
  readonly onSecure: (socket: TLSSocket) => void;
  /** A sender of ours that does not speak TLS. It understands what it is told, and so it is told. */
  readonly onPlain: (socket: Socket) => void;
  /** A connection that wants to become channel `index`, and the bytes that it sent behind its opening. */
  readonly onChannel?: (socket: Socket, index: number, rest: Buffer) => void;
  readonly onFailed: (socket: Socket, error: BallastError) => void;
}

/**
 * Turns connections into TLS connections. The first byte is looked at before TLS gets it: a sender that was not given
 * its certificates would otherwise see nothing but a connection that closes.
 */
export class Handshakes {
  /** Never listens: connections are handed to it. */
  readonly #server: Server;
  readonly #options: HandshakeOptions;
  /** Connections whose handshake is not done, by the other side's address, the oldest first. */
  readonly #pending = new Map<string, Socket>();

  constructor(options: HandshakeOptions) {
    this.#options = options;
    this.#server = createServer({
      ...options.identity,
      // A certificate that does not verify is refused with a reason, after the handshake, and not dropped within it.
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: options.timeoutMs,
    });
    this.#server.on('secureConnection', (socket: TLSSocket) => {
      this.#pending.delete(peerOf(socket));
      options.onSecure(socket);
    });
    this.#server.on('tlsClientError', (error: Error, socket: Socket) => {
      const reason = explainHandshake(error) ?? `the handshake failed (${systemCode(error) ?? error.message})`;
      options.onFailed(socket, new BallastError(ErrorCode.TLS, reason, { cause: error }));
      socket.destroy();
    });
  }

  /** Takes a connection that was accepted and not read from. */
  take(socket: Socket): void {
    const peer = peerOf(socket);
    const { timeoutMs, atMost, onChannel, onFailed, onPlain } = this.#options;
    this.#pending.set(peer, socket);
    const timer = setTimeout(() => {
      const message = `it connected and said nothing for ${timeoutMs / 1000} s`;
      onFailed(socket, new BallastError(ErrorCode.TIMEOUT, message));
      socket.destroy();
    }, timeoutMs);
    const ignore = (): void => undefined;
    socket.on('error', ignore);
    socket.once('close', () => {
      clearTimeout(timer);
      if (this.#pending.get(peer) === socket) this.#pending.delete(peer);
    });
    let first = Buffer.alloc(0);
    const onReadable = (): void => {
      const more: unknown = socket.read();
      if (!(more instanceof Buffer)) {
        // It closed before it said anything, or enough.
        if (socket.readableEnded || socket.destroyed) socket.destroy();
        return;
      }
      first = Buffer.concat([first, more]);
      if (onChannel !== undefined && mayBeChannel(first)) return;
      socket.removeListener('readable', onReadable);
      clearTimeout(timer);
      // Only what speaks Ballast in the clear begins so.
      if (first[0] !== PREAMBLE[0]) {
        socket.unshift(first);
        this.#server.emit('connection', socket);
        return;
      }
      this.#pending.delete(peer);
      const channel = channelOf(first);
      if (onChannel !== undefined && channel !== undefined) {
        onChannel(socket, channel, first.subarray(PREAMBLE.length));
      } else {
        socket.unshift(first);
        onPlain(socket);
      }
    };
    socket.on('readable', onReadable);
    if (this.#pending.size > atMost) this.#dropOldest();
  }

  /** Ends all handshakes. */
  close(): void {
    for (const socket of this.#pending.values()) socket.destroy();
  }

  #dropOldest(): void {
    for (const [peer, oldest] of this.#pending) {
      // At once, and not when it has closed: another connection may come before that.
      this.#pending.delete(peer);
      this.#options.onFailed(oldest, new BallastError(ErrorCode.BUSY, 'too many connections that say nothing'));
      oldest.destroy();
      return;
    }
  }
}

function peerOf(socket: Socket): string {
  return `${socket.remoteAddress ?? ''} ${socket.remotePort ?? 0}`;
}
