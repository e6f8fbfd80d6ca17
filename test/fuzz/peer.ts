import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { FrameDecoder, PREAMBLE, decodeControl, type ControlMessage } from '@ballast/shared/protocol';
import type { Random } from './random.js';
import { encodeFrame, type WireFrame } from './wire-frame.js';

/** One end of a connection that says what it likes, and notes what the other side says. */
export class Peer {
  readonly #socket: Socket;
  readonly #decoder = new FrameDecoder();
  readonly #heard: ControlMessage[] = [];
  #wake: () => void = () => undefined;
  #sequence = 0;
  #over = false;

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

  /** A connection to a port where nobody listens any more is one that is over. */
  static async connect(port: number): Promise<Peer> {
    const socket = connect(port, '127.0.0.1');
    const peer = new Peer(socket);
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
    for (const deadline = performance.now() + limitMs; ;) {
      for (let message = this.#heard.shift(); message !== undefined; message = this.#heard.shift())
        if (kinds.includes(message.kind)) return message;
      const left = deadline - performance.now();
      if (this.#over || left <= 0) return undefined;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async closed(): Promise<void> {
    if (!this.#socket.closed) await once(this.#socket, 'close');
  }

  #end(): void {
    this.#over = true;
    this.#socket.destroy();
    this.#wake();
  }

  #take(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      at += this.#decoder.push(chunk.subarray(at));
      for (let frame = this.#decoder.shift(); frame !== undefined; frame = this.#decoder.shift()) {
        if (frame.header.type === 1) this.#heard.push(decodeControl(frame.payload));
        this.#decoder.recycle(frame);
      }
    }
    this.#wake();
  }
}
