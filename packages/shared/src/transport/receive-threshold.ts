import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { setSocketOption } from '../libc.js';
import { descriptorOf } from './descriptor.js';

const SOL_SOCKET = 1;
const SO_RCVLOWAT = 18;
/** Bytes that the kernel gathers at most before it wakes this process: more would leave the cache before they are read. */
const MOST_BYTES = 512 << 10;
/** A wait for less than this saves too little. */
const LEAST_BYTES = 64 << 10;
/** Bytes a millisecond from which on it is used: then the longest wait is one of 8 ms. */
const FAST = 64_000;

/**
 * On a fast link, a process that takes what comes as soon as it comes is woken for each segment, and waking costs both
 * hosts' processors. Within a frame the kernel is asked to gather some of it first (SO_RCVLOWAT): only bytes that are surely
 * on their way, only while the link is fast, and never for longer than until the next call of `look`. The end of the stream
 * wakes in any case, and so does a full buffer.
 */
export class ReceiveThreshold {
  #socket: Socket;
  #bytes = 1;
  #isFast = false;
  /** What had come, and when, at the last look. */
  #seen = 0;
  #seenAt = performance.now();

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Of a connected TCP socket; undefined with TLS, where the bytes of the stream are not those of the socket. */
  static of(socket: Socket): ReceiveThreshold | undefined {
    return socket instanceof TLSSocket ? undefined : new ReceiveThreshold(socket);
  }

  /** @param bytes that are still to come of what has begun */
  expect(bytes: number): void {
    this.#set(this.#isFast && bytes >= LEAST_BYTES ? Math.min(bytes, MOST_BYTES) : 1);
  }

  /**
   * Looks how fast the link is now. Where it is not, what has come is told at once.
   * @param received bytes that have come in all
   */
  look(received: number): void {
    const now = performance.now();
    this.#isFast = (received - this.#seen) / (now - this.#seenAt) >= FAST;
    this.#seen = received;
    this.#seenAt = now;
    if (!this.#isFast) this.#set(1);
  }

  /** Ends it: all that comes is told at once. */
  stop(): void {
    this.#isFast = false;
    this.#set(1);
  }

  #set(bytes: number): void {
    if (bytes === this.#bytes) return;
    const value = Buffer.alloc(4);
    value.writeUInt32LE(bytes);
    try {
      setSocketOption(descriptorOf(this.#socket), SOL_SOCKET, SO_RCVLOWAT, value);
      this.#bytes = bytes;
    } catch {
      // Node hides the descriptor, or the connection is over: there is nothing to gather, or nobody to be woken.
    }
  }
}
