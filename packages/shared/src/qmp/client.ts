import { createConnection, type Socket } from 'node:net';
import * as v from 'valibot';
import { BallastError, ErrorCode, systemCode } from '../errors.js';
import { socketPeer, type SocketPeer } from './socket-peer.js';

/** Milliseconds for the greeting, and for the answer to a command that does not say otherwise. */
const DEFAULT_TIMEOUT_MS = 10_000;
/** Characters of one line. The longest answers of QEMU, its schema, have a few hundred thousand. */
const MAX_LINE = 8 << 20;

/** Arguments of a command, and what it returns. */
export type JsonObject = Readonly<Record<string, unknown>>;

const objectSchema = v.record(v.string(), v.unknown());
const messageSchema = v.looseObject({
  QMP: v.optional(objectSchema),
  id: v.optional(v.number()),
  error: v.optional(v.looseObject({ desc: v.string() })),
  event: v.optional(v.string()),
});

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: BallastError) => void;
}

/**
 * A client of QEMU's monitor (docs/interop/qmp-spec.rst of QEMU):
 *
 *     QEMU -> {"QMP": …}                       greeting
 *     us   -> {"execute": "qmp_capabilities"}  and from then on commands, each with an id
 *     QEMU -> {"return": …, "id": n} | {"error": {"desc": …}, "id": n}
 *     QEMU -> {"event": …}                     at any time; in the order of things: before the answer to a later command
 *
 * A monitor serves one client at a time. When the connection ends, every pending and later command fails with QMP.
 */
export class QmpClient {
  /** Path of the socket. */
  readonly path: string;
  /** Who listens there; undefined where the kernel does not say. */
  readonly peer: SocketPeer | undefined;
  /** Told the name of each event. */
  onEvent: ((name: string) => void) | undefined;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #greet: (() => void) | undefined;
  #pieces: string[] = [];
  #pending = 0;
  #lastId = 0;
  #ended: BallastError | undefined;

  private constructor(path: string, socket: Socket) {
    this.path = path;
    this.#socket = socket;
    this.peer = socketPeer(socket);
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#take(text);
    });
    socket.on('error', (error) => {
      this.#end(broken(path, systemCode(error) ?? error.message, error));
    });
    socket.on('close', () => {
      this.#end(broken(path, 'QEMU closed it, or ended'));
    });
  }

  /**
   * Connects and agrees on capabilities.
   * @param signal gives it up until then; a monitor that serves somebody else lets us wait for all of `timeoutMs`
   * @throws BallastError QMP when nobody answers as QEMU does; ABORTED by the signal
   */
  static async connect(path: string, timeoutMs = DEFAULT_TIMEOUT_MS, signal?: AbortSignal): Promise<QmpClient> {
    const socket = createConnection(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) => {
        reject(unreachable(path, error));
      });
    });
    socket.removeAllListeners('error');
    const client = new QmpClient(path, socket);
    const onAbort = (): void => {
      client.#end(interrupted(path));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted === true) throw interrupted(path);
      await client.#within(
        'greeting',
        timeoutMs,
        new Promise<void>((resolve, reject) => {
          client.#greet = resolve;
          client.#waiting.set(0, { resolve: () => undefined, reject });
        }),
        `no greeting of QEMU came from ${path} within ${timeoutMs / 1000} s; a monitor serves one client at a time: give the guest a second one (-qmp) if another program uses this`,
      );
      client.#waiting.delete(0);
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      client.close();
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Why no command can be run any more, once that is so. */
  get failure(): BallastError | undefined {
    return this.#ended;
  }

  /**
   * Runs one command and gives what it returned.
   * @throws BallastError QMP with QEMU's own words when it refuses, and when no answer comes
   */
  async execute(command: string, args: JsonObject = {}, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = ++this.#lastId;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await this.#within(
        command,
        timeoutMs,
        answer,
        `QEMU at ${this.path} did not answer '${command}' within ${timeoutMs / 1000} s`,
      );
    } catch (error) {
      if (error instanceof BallastError && error.cause instanceof QmpRefusal) {
        throw new BallastError(
          ErrorCode.QMP,
          `QEMU at ${this.path} refused '${command}': ${error.cause.message.slice(0, 500)}`,
          { cause: error.cause },
        );
      }
      throw error;
    } finally {
      this.#waiting.delete(id);
    }
  }

  /**
   * As `execute`, for what returns an object that must look like `schema`.
   * @throws BallastError QMP
   */
  async query<S extends v.GenericSchema>(command: string, schema: S, args: JsonObject = {}): Promise<v.InferOutput<S>> {
    const parsed = v.safeParse(schema, await this.execute(command, args));
    if (parsed.success) return parsed.output;
    throw new BallastError(
      ErrorCode.QMP,
      `QEMU at ${this.path} answered '${command}' in a way that is not known here (${parsed.issues[0].message})`,
    );
  }

  close(): void {
    this.#end(broken(this.path, 'it was closed here'));
    this.#socket.destroy();
  }

  async #within<T>(what: string, timeoutMs: number, promise: Promise<T>, message: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new BallastError(ErrorCode.QMP, message, { cause: new Error(`waited for ${what}`) }));
      }, timeoutMs);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #take(text: string): void {
    const lines = text.split('\n');
    const rest = lines.pop() ?? '';
    for (const line of lines) {
      this.#pieces.push(line);
      const whole = this.#pieces.join('');
      this.#pieces = [];
      this.#pending = 0;
      this.#takeLine(whole);
    }
    if (rest === '') return;
    this.#pieces.push(rest);
    this.#pending += rest.length;
    if (this.#pending <= MAX_LINE) return;
    this.#end(broken(this.path, `it sent a line of more than ${MAX_LINE} characters`));
    this.#socket.destroy();
  }

  #takeLine(line: string): void {
    if (line.trim() === '' || this.#ended !== undefined) return;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      this.#notQemu(error);
      return;
    }
    const parsed = v.safeParse(messageSchema, value);
    if (!parsed.success || Array.isArray(value)) {
      this.#notQemu();
      return;
    }
    const { QMP: greeting, id, error, event } = parsed.output;
    if (greeting !== undefined) {
      this.#greet?.();
    } else if (event !== undefined) {
      this.onEvent?.(event);
    } else if (id !== undefined) {
      const waiting = this.#waiting.get(id);
      if (error === undefined) waiting?.resolve(parsed.output['return']);
      else waiting?.reject(new BallastError(ErrorCode.QMP, error.desc, { cause: new QmpRefusal(error.desc) }));
    }
  }

  #notQemu(cause?: unknown): void {
    this.#end(
      broken(this.path, 'what came is not what QEMU says: is it a monitor of mode control, as -qmp makes it?', cause),
    );
    this.#socket.destroy();
  }

  #end(error: BallastError): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

/** QEMU understood a command and said no, in its own words. */
export class QmpRefusal extends Error {
  override readonly name = 'QmpRefusal';
}

function broken(path: string, why: string, cause?: unknown): BallastError {
  return new BallastError(ErrorCode.QMP, `the connection to QEMU at ${path} ended (${why})`, { cause });
}

function interrupted(path: string): BallastError {
  return new BallastError(ErrorCode.ABORTED, `interrupted while waiting for QEMU at ${path}`);
}

function unreachable(path: string, error: Error): BallastError {
  const code = systemCode(error);
  const options = { cause: error };
  switch (code) {
    case 'ENOENT':
      return new BallastError(
        ErrorCode.QMP,
        `there is no monitor socket ${path}; expected the PATH that QEMU was given with -qmp unix:PATH,server=on,wait=off`,
        options,
      );
    case 'ECONNREFUSED':
      return new BallastError(
        ErrorCode.QMP,
        `nobody listens at ${path}; the QEMU that made this socket has ended`,
        options,
      );
    case 'EACCES':
      return new BallastError(
        ErrorCode.QMP,
        `this user may not use the monitor socket ${path}; run as the user of QEMU, or as root`,
        options,
      );
    default:
      return new BallastError(ErrorCode.QMP, `cannot connect to QEMU at ${path} (${code ?? error.message})`, options);
  }
}
