import { fstatSync, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { BallastError, ErrorCode, systemCode } from '../errors.js';
import type { TerminalLike } from './terminal.js';

/** stdout or stderr, or what stands for them. */
export type TextStream = Writable & TerminalLike;

/**
 * The way to a stream that may break or be slow. Nothing thrown, nothing lost silently: after the first error writes
 * are dropped; a reader that left (`| head -1`) is no failure, a full disk is.
 */
export class Sink {
  readonly stream: TextStream;
  readonly #name: string;
  /** Of a regular file, which is written here: Node's stream takes a write that a full disk cut short for a whole one. */
  readonly #file: number | undefined;
  #error: Error | undefined;
  #pending = 0;
  #idle: (() => void)[] = [];

  private constructor(stream: TextStream) {
    this.stream = stream;
    this.#name = stream === process.stderr ? 'stderr' : 'stdout';
    this.#file = regularFileOf(stream);
    // For good: an error may arrive after everything else has ended, and would be thrown if nobody listened.
    stream.on('error', (error) => {
      this.#error ??= error;
    });
  }

  static readonly #known = new WeakMap<TextStream, Sink>();

  /** The one sink of a stream. */
  static of(stream: TextStream): Sink {
    let sink = Sink.#known.get(stream);
    if (sink === undefined) {
      sink = new Sink(stream);
      Sink.#known.set(stream, sink);
    }
    return sink;
  }

  /** Why the text is not where it should be: undefined while all is well, and when the reader simply left. */
  get failure(): BallastError | undefined {
    if (this.#error === undefined) return undefined;
    const code = systemCode(this.#error);
    if (code === 'EPIPE' || code === 'ERR_STREAM_DESTROYED') return undefined;
    // What a terminal says after it was closed. A disk says it, too, and means a failure.
    if (code === 'EIO' && this.stream.isTTY === true) return undefined;
    return new BallastError(
      ErrorCode.WRITE,
      `the program's ${this.#name} cannot be written (${code ?? this.#error.message}); what it says is incomplete`,
      { cause: this.#error },
    );
  }

  /** Bytes that wait here because nobody reads them. */
  get backlog(): number {
    return this.stream.writableLength;
  }

  write(text: string): void {
    if (this.#error !== undefined || this.stream.destroyed || this.stream.writableEnded) return;
    if (this.#file !== undefined) {
      this.#writeToFile(this.#file, Buffer.from(text));
      return;
    }
    this.#pending++;
    this.stream.write(text, (error) => {
      if (error) this.#error ??= error;
      this.#pending--;
      if (this.#pending === 0) for (const wake of this.#idle.splice(0)) wake();
    });
  }

  /** Resolves when all that was written has left this process, or never can. */
  async flush(): Promise<void> {
    if (this.#pending === 0) return;
    await new Promise<void>((resolve) => {
      this.#idle.push(resolve);
    });
  }

  #writeToFile(fd: number, bytes: Buffer): void {
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
    } catch (error) {
      this.#error = error instanceof Error ? error : new Error(String(error));
    }
  }
}

/** The descriptor of a stream that writes to a regular file. */
function regularFileOf(stream: TextStream): number | undefined {
  const { fd } = stream as { fd?: unknown };
  if (typeof fd !== 'number') return undefined;
  try {
    return fstatSync(fd).isFile() ? fd : undefined;
  } catch {
    return undefined;
  }
}
