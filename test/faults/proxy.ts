import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { FrameDecoder, decodeControl, FrameType, type ControlKind } from '@ballast/shared/protocol';
import { boundKernelBuffers, type Address } from '@ballast/shared/transport';
import type { ExecutionContext } from 'ava';

/** What a fault can do to the connection that the bytes belong to. */
export interface Link {
  /** Ends both connections at once, and with them what is on its way. */
  cut(): void;
  /** Forwards nothing in either direction from now on, and closes nothing: a cable that was pulled. */
  hang(): void;
}

/**
 * Something wrong with one direction of a way. An instance counts the bytes that pass it, so that one that serves
 * several connections sees them as one stream.
 */
export interface Fault {
  /** @returns the bytes to forward instead of `chunk`, which it may change */
  pass(chunk: Buffer, link: Link): readonly Buffer[] | Promise<readonly Buffer[]>;
}

/** Cuts the connection when so many bytes have passed. Once. */
export function cutAfter(bytes: number): Fault {
  return atByte(bytes, (link) => {
    link.cut();
  });
}

/** Stops forwarding, both ways, when so many bytes have passed. Once. */
export function hangAfter(bytes: number): Fault {
  return atByte(bytes, (link) => {
    link.hang();
  });
}

function atByte(bytes: number, act: (link: Link) => void): Fault {
  let left = bytes;
  return {
    pass(chunk, link) {
      if (left < 0) return [chunk];
      left -= chunk.length;
      if (left > 0) return [chunk];
      const before = chunk.subarray(0, chunk.length + left);
      left = -1;
      act(link);
      return [before];
    },
  };
}

/** Holds all bytes back for a while when so many have passed. Once. */
export function stallAfter(bytes: number, milliseconds: number): Fault {
  let left = bytes;
  return {
    async pass(chunk) {
      const begins = left > 0 && left <= chunk.length;
      left -= chunk.length;
      if (begins) await sleep(milliseconds);
      return [chunk];
    },
  };
}

/** Flips one bit in each stretch of so many bytes, each time another one. */
export function flipEvery(bytes: number): Fault & { readonly flips: number } {
  let position = 0;
  let next = bytes;
  let flips = 0;
  return {
    get flips() {
      return flips;
    },
    pass(chunk) {
      for (; next < position + chunk.length; next += bytes) {
        const at = next - position;
        chunk.writeUInt8(chunk.readUInt8(at) ^ (1 << (flips % 8)), at);
        flips++;
      }
      position += chunk.length;
      return [chunk];
    },
  };
}

/** Flips one bit of the byte at `position`. Once. */
export function flipAt(position: number): Fault & { readonly flips: number } {
  return spanFault(position, 1, (byte) => [Buffer.from([byte.readUInt8(0) ^ 1])]);
}

/** Repeats the `length` bytes at `position`. Once. */
export function duplicate(position: number, length: number): Fault {
  return spanFault(position, length, (span) => [span, span]);
}

/** Swaps the `length` bytes at `position` with the `length` bytes behind them. Once. */
export function reorder(position: number, length: number): Fault {
  return spanFault(position, 2 * length, (span) => [span.subarray(length), span.subarray(0, length)]);
}

/** Loses the `length` bytes at `position`. Once. */
export function lose(position: number, length: number): Fault & { readonly flips: number } {
  return spanFault(position, length, () => []);
}

/** Collects a span, holding it back, and forwards what `change` makes of it. */
function spanFault(
  position: number,
  length: number,
  change: (span: Buffer) => readonly Buffer[],
): Fault & { readonly flips: number } {
  let seen = 0;
  let flips = 0;
  const span: Buffer[] = [];
  return {
    get flips() {
      return flips;
    },
    pass(chunk) {
      const start = Math.min(chunk.length, Math.max(0, position - seen));
      const end = Math.min(chunk.length, Math.max(0, position + length - seen));
      seen += chunk.length;
      if (start === end) return [chunk];
      span.push(chunk.subarray(start, end));
      if (seen < position + length) return [chunk.subarray(0, start)];
      flips++;
      return [chunk.subarray(0, start), ...change(Buffer.concat(span)), chunk.subarray(end)];
    },
  };
}

/** Lets so many bytes a second through. */
export function throttle(bytesPerSecond: number): Fault {
  return {
    async pass(chunk) {
      await sleep((chunk.length / bytesPerSecond) * 1000);
      return [chunk];
    },
  };
}

/** Cuts the connection the moment that a control message of this kind is about to pass. Once. */
export function cutAt(kind: ControlKind): Fault {
  return atControl(kind, (link) => {
    link.cut();
  });
}

/** Stops forwarding, both ways, the moment that a control message of this kind is about to pass. Once. */
export function hangAt(kind: ControlKind): Fault {
  return atControl(kind, (link) => {
    link.hang();
  });
}

/** Does something the moment that a control message of this kind is about to pass, and lets it pass afterwards. Once. */
export function doAt(kind: ControlKind, act: () => void | Promise<void>): Fault {
  const control = atControl(kind, () => {
    found = true;
  });
  let found = false;
  let done = false;
  return {
    async pass(chunk, link) {
      if (!done) await control.pass(chunk, link);
      if (found && !done) {
        done = true;
        await act();
      }
      return [chunk];
    },
  };
}

/** Serves one connection: it reads the stream from its beginning. */
function atControl(kind: ControlKind, act: (link: Link) => void): Fault {
  const decoder = new FrameDecoder();
  let done = false;
  return {
    pass(chunk, link) {
      for (let taken = 0; taken < chunk.length && !done;) {
        taken += decoder.push(chunk.subarray(taken));
        for (let frame = decoder.shift(); frame !== undefined; frame = decoder.shift()) {
          const found = frame.header.type === FrameType.control && decodeControl(frame.payload).kind === kind;
          decoder.recycle(frame);
          if (!found) continue;
          done = true;
          act(link);
          return [];
        }
      }
      return [chunk];
    },
  };
}

/** What is wrong with one connection. */
export interface Faults {
  readonly toReceiver?: readonly Fault[];
  readonly toSender?: readonly Fault[];
}

/**
 * A way between a sender and a receiver that has faults. It listens on loopback until the end of the test, and each
 * connection through it gets the faults that the test chooses.
 */
export class Proxy {
  /** Where connections lead to; a receiver that was started again may listen elsewhere. */
  target: Address;
  readonly #server: Server;
  readonly #faults: (connection: number) => Faults;
  readonly #links = new Set<ProxiedConnection>();
  #connections = 0;
  #toReceiver = 0;
  #toSender = 0;
  #waiters: { readonly bytes: number; readonly wake: () => void }[] = [];

  private constructor(server: Server, target: Address, faults: (connection: number) => Faults) {
    this.#server = server;
    this.target = target;
    this.#faults = faults;
    server.on('connection', (socket) => {
      this.#join(socket);
    });
  }

  /** @param faults of the n-th connection, from 0 on */
  static async open(
    t: ExecutionContext,
    target: Address,
    faults: (connection: number) => Faults = () => ({}),
  ): Promise<Proxy> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const proxy = new Proxy(server, target, faults);
    t.teardown(() => {
      server.close();
      proxy.cut();
    });
    return proxy;
  }

  get address(): Address {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') throw new Error('the proxy has no address');
    return { host: bound.address, port: bound.port };
  }

  /** The address as a sender's --to. */
  get to(): string {
    return `${this.address.host}:${this.address.port}`;
  }

  /** Connections that were made through it. */
  get connections(): number {
    return this.#connections;
  }

  /** Bytes that came, from all connections and in both directions. */
  get bytes(): number {
    return this.#toReceiver + this.#toSender;
  }

  /** Bytes of senders that came. */
  get bytesToReceiver(): number {
    return this.#toReceiver;
  }

  /** Resolves when senders have sent so many bytes in all. */
  async passed(bytes: number): Promise<void> {
    if (this.#toReceiver >= bytes) return;
    await new Promise<void>((wake) => {
      this.#waiters.push({ bytes, wake });
    });
  }

  /** Ends every connection at once; new ones are taken. */
  cut(): void {
    for (const link of this.#links) link.cut();
  }

  /** Forwards nothing more on the connections that there are, and closes none of them; new ones are taken. */
  hang(): void {
    for (const link of this.#links) link.hang();
  }

  #join(sender: Socket): void {
    // A thirty-second of the bound, 1 MiB: what a cut costs is to be what the programs had, and not what waits here.
    boundKernelBuffers(sender, 32);
    const link = new ProxiedConnection(sender, connect({ ...this.target, allowHalfOpen: true }));
    this.#links.add(link);
    const { toReceiver = [], toSender = [] } = this.#faults(this.#connections++);
    const inbound = link.forward(sender, link.receiver, toReceiver, (bytes) => {
      this.#toReceiver += bytes;
      const due = this.#waiters.filter((waiter) => waiter.bytes <= this.#toReceiver);
      this.#waiters = this.#waiters.filter((waiter) => waiter.bytes > this.#toReceiver);
      for (const { wake } of due) wake();
    });
    const outbound = link.forward(link.receiver, sender, toSender, (bytes) => {
      this.#toSender += bytes;
    });
    void Promise.all([inbound, outbound]).then(() => this.#links.delete(link));
  }
}

class ProxiedConnection implements Link {
  readonly receiver: Socket;
  readonly #sender: Socket;
  #hangs = false;

  constructor(sender: Socket, receiver: Socket) {
    this.#sender = sender;
    this.receiver = receiver;
  }

  cut(): void {
    this.#sender.destroy();
    this.receiver.destroy();
  }

  hang(): void {
    this.#hangs = true;
  }

  /** Carries one direction until it ends; what breaks on one side breaks on the other. */
  async forward(from: Socket, to: Socket, faults: readonly Fault[], count: (bytes: number) => void): Promise<void> {
    to.on('error', () => {
      if (!this.#hangs) this.cut();
    });
    try {
      // Read to the end even when it hangs: what is not forwarded is lost, as on a cable that was pulled.
      // A side that has ended what it says may still listen: the iterator must not destroy its socket then.
      for await (const chunk of from.iterator({ destroyOnReturn: false })) {
        if (!Buffer.isBuffer(chunk)) throw new TypeError('a socket without an encoding gives buffers');
        count(chunk.length);
        let pieces: readonly Buffer[] = [chunk];
        for (const fault of faults) {
          const passed: Buffer[] = [];
          for (const piece of pieces) passed.push(...(await fault.pass(piece, this)));
          pieces = passed;
        }
        if (this.#hangs) {
          await closed(from, to);
          return;
        }
        for (const piece of pieces) {
          if (piece.length > 0 && !to.write(piece)) await drained(to);
        }
      }
      if (!this.#hangs) to.end();
    } catch {
      if (!this.#hangs) this.cut();
    }
  }
}

/** Resolves when more can be written, or nothing can any more. */
async function drained(socket: Socket): Promise<void> {
  if (socket.destroyed) return;
  await new Promise<void>((resolve) => {
    const settle = (): void => {
      socket.off('drain', settle).off('close', settle);
      resolve();
    };
    socket.on('drain', settle).on('close', settle);
  });
}

async function closed(...sockets: readonly Socket[]): Promise<void> {
  if (sockets.some((socket) => socket.destroyed)) return;
  await new Promise<void>((resolve) => {
    for (const socket of sockets) socket.once('close', resolve);
  });
}
