import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseObject, type JsonObject } from './json.js';
import { poll } from './wait.js';

export const SENDER = packageFile('sender/bin/ballast-send.js');
export const RECEIVER = packageFile('receiver/bin/ballast-receive.js');

const LISTEN_TIMEOUT_MS = 15_000;
const TRANSFER_TIMEOUT_MS = 60_000;

/** The last event of each program. */
export interface Transfer {
  readonly sent: JsonObject;
  readonly received: JsonObject;
}

/** Moves memory files from one program to the other over loopback, as two users on two hosts would do. */
export async function moveMemory(sources: readonly string[], destinations: readonly string[]): Promise<Transfer> {
  const receiver = new Program(RECEIVER, [...destinations, '--listen', '127.0.0.1:0', '--json']);
  let sender: Program | undefined;
  try {
    const { host, port } = await receiver.event('listening', LISTEN_TIMEOUT_MS);
    sender = new Program(SENDER, [...sources, '--to', `${String(host)}:${String(port)}`, '--json']);
    const sent = await sender.event('done', TRANSFER_TIMEOUT_MS);
    const received = await receiver.event('done', TRANSFER_TIMEOUT_MS);
    await Promise.all([sender.succeeded(), receiver.succeeded()]);
    return { sent, received };
  } finally {
    await Promise.all([sender?.dispose(), receiver.dispose()]);
  }
}

/** One of the two programs with --json, and the lines that it has printed so far. */
export class Program {
  readonly #child;
  readonly #name: string;
  readonly #lines: string[] = [];
  readonly #closed: Promise<unknown>;
  #stderr = '';

  constructor(path: string, args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
    this.#name = path.slice(path.lastIndexOf('/') + 1);
    const env = { ...process.env, ...environment };
    this.#child = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.#lines.push(line);
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.#closed = once(this.#child, 'close');
  }

  /** Waits for an event of this name, or for the end of the program, which is a failure. */
  async event(name: string, timeoutMs: number): Promise<JsonObject> {
    return poll(`${this.#name}'s event ${name}`, timeoutMs, async () => {
      const ended = this.#child.exitCode !== null || this.#child.signalCode !== null;
      // Its last lines may still be on their way when a program has ended.
      if (ended) await this.#closed;
      const found = this.#lines.map(parseObject).find((event) => event['event'] === name);
      if (found === undefined && ended) throw this.#failure(`no event ${name}`);
      return found;
    });
  }

  async succeeded(): Promise<void> {
    await this.#closed;
    if (this.#child.exitCode !== 0) throw this.#failure('not an exit status of 0');
  }

  /** Waits for its end, whatever it is: its exit status, and its last event `error` where there is one. */
  async ended(): Promise<{ status: number | null; error: JsonObject | undefined }> {
    await this.#closed;
    const error = this.#lines.map(parseObject).findLast((event) => event['event'] === 'error');
    return { status: this.#child.exitCode, error };
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async dispose(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }

  #failure(what: string): Error {
    const status = String(this.#child.signalCode ?? this.#child.exitCode);
    const said = [...this.#lines.slice(-3), this.#stderr.trim()].join('\n');
    return new Error(`${this.#name} ended with ${status}: ${what}\n${said}`);
  }
}

/** A file of a workspace, seen from where this module is compiled to. */
function packageFile(path: string): string {
  return fileURLToPath(new URL(`../../../packages/${path}`, import.meta.url));
}
