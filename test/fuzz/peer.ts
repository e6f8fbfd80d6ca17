import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  FrameDecoder,
  FrameType,
  PREAMBLE,
  channelPreamble,
  decodeControl,
  type ControlMessage,
} from '@ballast/shared/protocol';
import type { Random } from './random.js';
import { encodeFrame, type WireFrame } from './wire-frame.js';

/** One end of a connection that says what it likes, and notes what the other side says. */
export class Peer {
  /** Told each message that comes, waited for or not. */
  onMessage: ((message: ControlMessage) => void) | undefined;
  readonly #socket: Socket;
  #decoder = new FrameDecoder();
  readonly #heard: ControlMessage[] = [];
  #wake: () => void = () => undefined;
  #sequence = 0;
  #over = false;
  #channel: number | undefined;
  #spansTold = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#take(chunk);
    });
    socket.on('error', () => undefined);
    socket.on('end', () => {
      this.#end();
    });
    socket.on('close', () => {
      this.#end();
    });
  }

  /**
   * A connection to a port where nobody listens any more is one that is over.
   * @param channel which it says that it wants to be
   */
  static async connect(port: number, channel?: number): Promise<Peer> {
    const socket = connect(port, '127.0.0.1');
    const peer = new Peer(socket);
    if (channel !== undefined) socket.write(channelPreamble(channel));
    await new Promise<void>((resolve) => {
      socket.once('connect', resolve);
      socket.once('close', () => {
        resolve();
      });
    });
    return peer;
  }

  /** Whether the other side has closed. */
  get over(): boolean {
    return this.#over;
  }

  /** Which channel the other side wants this connection to be; undefined for none. To be asked when it is `opened`. */
  get channel(): number | undefined {
    return this.#channel;
  }

  write(bytes: Buffer): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }

  preamble(bytes: Buffer = PREAMBLE): void {
    this.write(bytes);
  }

  /** Sends a frame, in one piece or in several that arrive apart. */
  async send(frame: WireFrame, random: Random): Promise<void> {
    const bytes = encodeFrame(frame, this.#sequence++);
    if (!random.oneIn(12)) {
      this.write(bytes);
      return;
    }
    const at = random.below(bytes.length);
    this.write(bytes.subarray(0, at));
    await sleep(1);
    this.write(bytes.subarray(at));
  }

  /** The next message of one of these kinds; undefined when none comes in time. Others are skipped. */
  async hear(kinds: readonly string[], limitMs: number): Promise<ControlMessage | undefined> {
    return await this.#waitFor(limitMs, () => {
      for (let message = this.#heard.shift(); message !== undefined; message = this.#heard.shift())
        if (kinds.includes(message.kind)) return message;
      return undefined;
    });
  }

  /** Waits until the other side's first bytes have said what the connection is to be. */
  async opened(limitMs: number): Promise<void> {
    await this.#waitFor(limitMs, () => this.#channel ?? this.#decoder.opening);
  }

  /** Waits until so many spans of holdings were told to their end, in all. */
  async told(spans: number, limitMs: number): Promise<void> {
    await this.#waitFor(limitMs, () => (this.#spansTold >= spans ? true : undefined));
  }

  /** Waits until the other side has closed. */
  async ended(limitMs: number): Promise<void> {
    await this.#waitFor(limitMs, () => undefined);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async closed(): Promise<void> {
    // Not by `once` of node:events, which throws where the end is a reset.
    if (!this.#socket.closed) await new Promise((resolve) => this.#socket.once('close', resolve));
  }

  /** @returns what `look` finds; undefined when it finds nothing in time, or the connection is over */
  async #waitFor<T>(limitMs: number, look: () => T | undefined): Promise<T | undefined> {
    for (const deadline = performance.now() + limitMs; ;) {
      const found = look();
      const left = deadline - performance.now();
      if (found !== undefined || this.#over || left <= 0) return found;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
  }

  #end(): void {
    this.#over = true;
    this.#socket.destroy();
    this.#wake();
  }

  #take(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      at += this.#decoder.push(chunk.subarray(at));
      if (this.#decoder.opening?.kind === 'channel') {
        this.#channel = this.#decoder.opening.index;
        this.#decoder = new FrameDecoder();
      }
      for (let frame = this.#decoder.shift(); frame !== undefined; frame = this.#decoder.shift()) {
        const { type, count } = frame.header;
        if (type === FrameType.control) {
          const message = decodeControl(frame.payload);
          this.onMessage?.(message);
          this.#heard.push(message);
        }
        if (type === FrameType.holdings && count === 0) this.#spansTold++;
        this.#decoder.recycle(frame);
      }
    }
    this.#wake();
  }
}

/** Fake peers on a free port of loopback, one for each connection. */
export interface Peers {
  readonly port: number;
  /** Takes no more connections, and waits until those that there are have ended. */
  close(): Promise<void>;
}

/** @param answer does all that one of them does; its connection ends with it */
export async function listenAsPeers(answer: (peer: Peer) => Promise<void>): Promise<Peers> {
  const answers = new Set<Promise<void>>();
  const server = createServer((socket) => {
    const peer = new Peer(socket);
    const work = answer(peer).finally(() => {
      peer.destroy();
      answers.delete(work);
    });
    answers.add(work);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no address');
  return {
    port: address.port,
    close: async () => {
      server.close();
      await Promise.all(answers);
    },
  };
}
