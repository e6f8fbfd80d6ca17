import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { LEAF_SIZE } from '@ballast/shared/memory';
import {
  FrameDecoder,
  FrameType,
  HEADER_SIZE,
  decodeControl,
  encodeControl,
  encodeHeader,
  type FrameHeader,
} from '@ballast/shared/protocol';
import type { Address } from '@ballast/shared/transport';
import type { ExecutionContext } from 'ava';

/**
 * Stands between a sender and a receiver, writes down every byte of both directions, and can hold the sender's bytes
 * back: then a test has all the time it wants to do something in the middle of a transfer.
 */
export class Wire {
  readonly #t: ExecutionContext;
  readonly #server: Server;
  readonly #target: Address;
  readonly #holdAfter: number;
  readonly #sockets = new Set<Socket>();
  readonly #fromSender: Buffer[] = [];
  readonly #fromReceiver: Buffer[] = [];
  #forwarded = 0;
  #holding: (() => void) | undefined;
  #released = false;
  #onHeld: () => void = () => undefined;
  /** Resolves when the wire has begun to hold bytes back. */
  readonly held = new Promise<void>((resolve) => {
    this.#onHeld = resolve;
  });

  private constructor(t: ExecutionContext, server: Server, target: Address, holdAfter: number) {
    this.#t = t;
    this.#server = server;
    this.#target = target;
    this.#holdAfter = holdAfter;
    server.on('connection', (socket) => {
      this.#join(socket);
    });
  }

  /** @param holdAfter bytes of the sender to let through before the rest is held back; default: all */
  static async open(t: ExecutionContext, target: Address, holdAfter = Infinity): Promise<Wire> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const wire = new Wire(t, server, target, holdAfter);
    t.teardown(() => {
      wire.cut();
    });
    return wire;
  }

  get address(): Address {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') throw new Error('the wire has no address');
    return { host: bound.address, port: bound.port };
  }

  /** All that the sender has sent. */
  get fromSender(): Buffer {
    return Buffer.concat(this.#fromSender);
  }

  /** All that the receiver has sent. */
  get fromReceiver(): Buffer {
    return Buffer.concat(this.#fromReceiver);
  }

  /** Lets everything through from now on. */
  release(): void {
    this.#released = true;
    this.#holding?.();
    this.#holding = undefined;
  }

  /**
   * Does something while bytes are held back. What it throws, a failed assertion say, ends the transfer, which would
   * otherwise be held for ever.
   */
  whenHeld(action: () => void | Promise<void>): void {
    this.held.then(action).catch((error: unknown) => {
      this.#t.log(String(error));
      this.cut();
    });
  }

  /** Ends both connections at once and listens no more. */
  cut(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(sender: Socket): void {
    const receiver = connect({ ...this.#target, allowHalfOpen: true });
    for (const [socket, other] of [
      [sender, receiver],
      [receiver, sender],
    ] as const) {
      this.#sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        this.#sockets.delete(socket);
        if (socket.errored !== null) other.destroy();
      });
    }
    sender.on('data', (chunk: Buffer) => {
      this.#fromSender.push(chunk);
      this.#forwarded += chunk.length;
      const forward = (): void => {
        if (receiver.write(chunk)) sender.resume();
        else receiver.once('drain', () => sender.resume());
      };
      sender.pause();
      if (this.#released || this.#forwarded <= this.#holdAfter) {
        forward();
        return;
      }
      this.#holding = forward;
      this.#onHeld();
    });
    sender.on('end', () => receiver.end());
    receiver.on('data', (chunk: Buffer) => {
      this.#fromReceiver.push(chunk);
      sender.write(chunk);
    });
    receiver.on('end', () => sender.end());
  }
}

/** A frame that was on the wire, its header as bytes, too. */
export interface RecordedFrame {
  readonly header: FrameHeader;
  readonly headerBytes: Buffer;
  readonly payload: Buffer;
}

/** The frames of one direction, whole ones only. */
export function framesOf(bytes: Buffer): RecordedFrame[] {
  const decoder = new FrameDecoder();
  const frames: RecordedFrame[] = [];
  for (let taken = 0; taken < bytes.length;) {
    // It takes less than it is given when it waits for a frame to be recycled, which happens below.
    taken += decoder.push(bytes.subarray(taken, taken + LEAF_SIZE));
    for (let frame = decoder.shift(); frame !== undefined; frame = decoder.shift()) {
      const { header } = frame;
      frames.push({ header, headerBytes: encodeHeader(header), payload: Buffer.from(frame.payload) });
      decoder.recycle(frame);
    }
  }
  return frames;
}

/** Bytes of a heartbeat on the wire. */
const HEARTBEAT_BYTES = HEADER_SIZE + encodeControl({ kind: 'heartbeat' }).length;

/**
 * Asserts that two counts of the bytes of one transfer are equal but for heartbeats: some may be under way when either is
 * taken.
 */
export function sameButHeartbeats(t: ExecutionContext, counted: number, expected: number, message?: string): void {
  const difference = Math.abs(counted - expected);
  t.is(difference % HEARTBEAT_BYTES, 0, `${message ?? ''} ${counted} counted, ${expected} expected`);
}

/** Bytes of frames, heartbeats left out: they come when they come. */
export function bytesButHeartbeats(frames: readonly RecordedFrame[]): number {
  return frames
    .filter(({ header, payload }) => header.type !== FrameType.control || decodeControl(payload).kind !== 'heartbeat')
    .reduce((sum, { payload }) => sum + HEADER_SIZE + payload.length, 0);
}

/**
 * For `via` of a transfer: holds the sender's bytes back after `holdAfter` of them, does something meanwhile, and lets
 * everything through then.
 */
export function whileHeld(
  t: ExecutionContext,
  holdAfter: number,
  action: (receiver: Address) => void | Promise<void>,
): (receiver: Address) => Promise<Address> {
  return async (receiver) => {
    const wire = await Wire.open(t, receiver, holdAfter);
    wire.whenHeld(async () => {
      await action(receiver);
      wire.release();
    });
    return wire.address;
  };
}
