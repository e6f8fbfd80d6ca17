import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable } from 'node:stream';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Address } from '@ballast/shared/transport';
import type { ExecutionContext } from 'ava';

/** A program that has said nothing new for so long is stuck. */
const PATIENCE_MS = 30_000;

export type JsonObject = Readonly<Record<string, unknown>>;

/** How a program ended, and all that it said. */
export interface ProgramEnd {
  /** Exit status; null when a signal killed it. */
  readonly status: number | null;
  readonly killedBy: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Runs as another user. */
  readonly uid?: number;
  readonly gid?: number;
  /** The Node.js that runs it. Default: the one that runs the test. */
  readonly node?: string;
  /** A command that runs the program in its own place, such as `ip netns exec NAME`. */
  readonly within?: readonly string[];
  /** Folder of the packages whose program it is, instead of those of this workspace. */
  readonly packages?: string;
}

/** One of the two real programs, as a process of its own; killed at the end of the test if it still runs. */
export class Program {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly ended: Promise<ProgramEnd>;
  #stdout = '';
  #stderr = '';
  #over = false;

  private constructor(t: ExecutionContext, path: string, args: readonly string[], options: ProgramOptions) {
    const { within = [], node = process.execPath, packages = PACKAGES, ...spawning } = options;
    const [command = node, ...rest] = [...within, node, join(packages, path), ...args];
    this.#child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'], ...spawning });
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    // A command that cannot be started says so where the program's own words would be.
    this.#child.on('error', (error) => {
      this.#stderr += error.message;
      this.#over = true;
    });
    this.ended = new Promise((resolve) => this.#child.once('close', resolve)).then(() => {
      this.#over = true;
      return {
        status: this.#child.exitCode,
        killedBy: this.#child.signalCode,
        stdout: this.#stdout,
        stderr: this.#stderr,
      };
    });
    t.teardown(async () => {
      this.kill('SIGKILL');
      await this.ended;
    });
  }

  static sender(t: ExecutionContext, args: readonly string[], options: ProgramOptions = {}): Program {
    return new Program(t, SENDER, args, options);
  }

  static receiver(t: ExecutionContext, args: readonly string[], options: ProgramOptions = {}): Program {
    return new Program(t, RECEIVER, args, options);
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the program did not start');
    return this.#child.pid;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.#over) this.#child.kill(signal);
  }

  /** The n-th event of this name on stdout, as soon as it is there. */
  async event(name: string, n = 0): Promise<JsonObject> {
    return await this.#waitFor(`event ${name}`, () => eventsIn(this.#stdout).filter(({ event }) => event === name)[n]);
  }

  /** Waits until stderr has a match, and returns it. */
  async said(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#waitFor(String(pattern), () => pattern.exec(this.#stderr) ?? undefined);
  }

  async #waitFor<T>(what: string, look: () => T | undefined): Promise<T> {
    for (const deadline = Date.now() + PATIENCE_MS; ;) {
      // Looked at before the output is: what a program said last is there when it has ended.
      const over = this.#over;
      const found = look();
      if (found !== undefined) return found;
      if (over || Date.now() > deadline) {
        throw new Error(`${over ? 'ended' : 'waited'} without ${what}:\n${this.#stdout}\n${this.#stderr}`);
      }
      await sleep(10);
    }
  }
}

/** The events of --json output; whole lines only. Each line must be a JSON object with a name. */
export function eventsIn(stdout: string): (JsonObject & { readonly event: string })[] {
  return stdout
    .slice(0, stdout.lastIndexOf('\n') + 1)
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const value: unknown = JSON.parse(line);
      if (typeof value !== 'object' || value === null || !('event' in value) || typeof value.event !== 'string') {
        throw new Error(`not an event: ${line}`);
      }
      return { ...value, event: value.event };
    });
}

/** A receiver that listens on any port of loopback, with --json, and where. */
export async function receiverProgram(
  t: ExecutionContext,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<{ receiver: Program; to: string; address: Address }> {
  const receiver = Program.receiver(t, [...args, '--listen', '127.0.0.1:0', '--json'], options);
  const { host, port } = await receiver.event('listening');
  const address = { host: String(host), port: Number(port) };
  return { receiver, to: `${address.host}:${address.port}`, address };
}

/** Runs a sender to its end. */
export async function runSender(
  t: ExecutionContext,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramEnd> {
  return await Program.sender(t, args, options).ended;
}

/** Runs a receiver to its end. */
export async function runReceiver(
  t: ExecutionContext,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramEnd> {
  return await Program.receiver(t, args, options).ended;
}

/** Asserts that a program failed as a user deserves: right status, one sentence on stderr, no stack. */
export function failedClearly(t: ExecutionContext, end: ProgramEnd, status: number, sentence: RegExp): void {
  t.is(end.status, status, end.stderr);
  t.is(end.killedBy, null);
  const lines = end.stderr.trimEnd().split('\n');
  const last = lines.at(-1) ?? '';
  t.regex(last, sentence);
  t.regex(last, /^ballast-(send|receive): /);
  t.notRegex(end.stderr, /^\s+at .*:\d+|node:internal|Error:/m, 'a stack is for --debug');
  t.is(lines.filter((line) => /^ballast-/.test(line)).length, 1, end.stderr);
}

const SENDER = 'sender/bin/ballast-send.js';
const RECEIVER = 'receiver/bin/ballast-receive.js';

/** Seen from where this module is compiled to. */
const PACKAGES = fileURLToPath(new URL('../../../packages', import.meta.url));

/** A program of this workspace. */
export function programFile(path: string): string {
  return join(PACKAGES, path);
}
