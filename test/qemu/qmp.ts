import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';
import { asObject, parseObject, type JsonObject } from './json.js';
import { within } from './wait.js';

const REPLY_TIMEOUT_MS = 20_000;

/** What QEMU answered to a command that it refused. */
export class QmpError extends Error {
  override readonly name = 'QmpError';
}

export interface QmpEvent {
  readonly event: string;
  readonly data: JsonObject;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/**
 * A QEMU monitor for tests: it trusts QEMU, keeps every event that came, and gives each answer a time limit.
 *
 *     QEMU  -> {"QMP": …}                     greeting
 *     tests -> {"execute":"qmp_capabilities"} and from then on commands
 *     QEMU  -> {"return": …, "id": n} | {"error": …, "id": n} | {"event": …}
 */
export class QmpClient {
  readonly #socket: Socket;
  readonly #lines: Interface;
  readonly #waiting = new Map<number, Waiting>();
  readonly #events: QmpEvent[] = [];
  readonly #greeted: Promise<void>;
  #greet: () => void = () => undefined;
  #wakeUp: () => void = () => undefined;
  #lastId = 0;
  #ended: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#greeted = new Promise((resolve) => {
      this.#greet = resolve;
    });
    this.#lines = createInterface({ input: socket });
    this.#lines.on('line', (line) => {
      this.#take(parseObject(line));
    });
    // readline passes errors of its input on in newer versions of Node; the socket's own listener below deals with them.
    this.#lines.on('error', () => undefined);
    socket.on('error', (error) => {
      this.#end(error);
    });
    socket.on('close', () => {
      this.#end(new Error('the QMP connection is closed'));
    });
  }

  /** Connects once, so that the caller decides whether a socket that is not there yet is worth another try. */
  static async connect(path: string): Promise<QmpClient> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    const client = new QmpClient(socket);
    try {
      await within('the QMP greeting', REPLY_TIMEOUT_MS, client.#greeted);
      await client.command('qmp_capabilities');
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /** Runs one command and gives what it returned; a refusal is a QmpError with QEMU's own words. */
  async command(name: string, args: JsonObject = {}): Promise<unknown> {
    if (this.#ended) throw this.#ended;
    const id = ++this.#lastId;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
    this.#socket.write(`${JSON.stringify({ execute: name, arguments: args, id })}\n`);
    try {
      return await within(`the answer to ${name}`, REPLY_TIMEOUT_MS, answer);
    } finally {
      this.#waiting.delete(id);
    }
  }

  /** The same for a command that returns an object, as nearly all queries do. */
  async query(name: string, args: JsonObject = {}): Promise<JsonObject> {
    return asObject(await this.command(name, args));
  }

  /** Every event so far, oldest first. */
  get events(): readonly QmpEvent[] {
    return this.#events;
  }

  /** Waits for an event, also one that came before the call. */
  async event(name: string, timeoutMs = REPLY_TIMEOUT_MS): Promise<QmpEvent> {
    const search = async (): Promise<QmpEvent> => {
      for (;;) {
        const found = this.#events.find((candidate) => candidate.event === name);
        if (found) return found;
        if (this.#ended) throw this.#ended;
        await new Promise<void>((resolve) => {
          const others = this.#wakeUp;
          this.#wakeUp = () => {
            others();
            resolve();
          };
        });
      }
    };
    return within(`the event ${name}`, timeoutMs, search());
  }

  close(): void {
    this.#lines.close();
    this.#socket.destroy();
  }

  #take(message: JsonObject): void {
    if ('QMP' in message) this.#greet();
    else if (typeof message['event'] === 'string') {
      this.#events.push({ event: message['event'], data: asObject(message['data'] ?? {}) });
      this.#wake();
    } else if (typeof message['id'] === 'number') {
      const waiting = this.#waiting.get(message['id']);
      if ('error' in message) waiting?.reject(new QmpError(String(asObject(message['error'])['desc'])));
      else waiting?.resolve(message['return']);
    }
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
    this.#wake();
  }

  #wake(): void {
    const wakeUp = this.#wakeUp;
    this.#wakeUp = () => undefined;
    wakeUp();
  }
}
