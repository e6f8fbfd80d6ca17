import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Readable } from 'node:stream';

/** How a program ended, and what it said. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** performance.now() at the moment of its exit. */
  readonly at: number;
  readonly lines: readonly string[];
  readonly stderr: string;
}

/** How a program is started. */
export interface ChildOptions {
  /** What it is called in messages; the command where nothing is given. */
  readonly name?: string;
  /** Watch how much anonymous memory the program takes. */
  readonly watchMemory?: boolean;
}

const running = new Set<Child>();
const POLL_MS = 20;
const PATIENCE_MS = 5000;
const STDERR_KEPT = 8192;

/** A program that runs beside this one. It is ended by its process id, and never outlives this program. */
export class Child {
  readonly name: string;
  /** Settles when the program has ended and all its output was read. */
  readonly ended: Promise<Ended>;
  readonly #process: ChildProcessByStdio<null, Readable, Readable>;
  readonly #lines: string[] = [];
  readonly #watchers = new Set<() => void>();
  #stderr = '';
  #peakAnonymous = 0;

  /** Starts a program; its messages are in English whatever the user's language, since some are parsed. */
  constructor(command: string, args: readonly string[], options: ChildOptions = {}) {
    this.name = options.name ?? command;
    this.#process = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    });
    running.add(this);
    this.#readLines();
    this.#process.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT);
    });
    this.ended = this.#watchEnd(options.watchMemory === true);
    // A program that fails before anyone waits for its end is reported to whoever waits later.
    this.ended.catch(() => undefined);
  }

  /** The most anonymous memory it was seen to have, in bytes. */
  get peakAnonymousBytes(): number {
    return this.#peakAnonymous;
  }

  /** Waits for the first line of its output from which `find` makes something. */
  async waitForLine<T>(find: (line: string) => T | undefined, what: string): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      let next = 0;
      const look = (): void => {
        for (; next < this.#lines.length; next += 1) {
          const found = find(this.#lines[next] ?? '');
          if (found === undefined) continue;
          finish();
          resolve(found);
          return;
        }
      };
      const timer = setTimeout(() => {
        finish();
        reject(new Error(`${this.name} did not say ${what} in ${PATIENCE_MS} ms`));
      }, PATIENCE_MS);
      const finish = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
      };
      this.#watchers.add(look);
      this.ended.then((ended) => {
        finish();
        reject(new Error(`${this.name} ended before it said ${what}: ${describeEnd(ended)}`));
      }, reject);
      look();
    });
  }

  /** Waits for its end, and fails with its own words where it did not end well. */
  async succeeded(): Promise<Ended> {
    const ended = await this.ended;
    if (ended.code !== 0) throw new Error(`${this.name} failed: ${describeEnd(ended)}`);
    return ended;
  }

  /** Ends it, first politely. */
  async end(): Promise<void> {
    if (!running.has(this)) return;
    this.kill('SIGTERM');
    const timer = setTimeout(() => {
      this.kill('SIGKILL');
    }, PATIENCE_MS);
    await this.ended.catch(() => undefined);
    clearTimeout(timer);
  }

  /** Sends a signal to it, by its process id. */
  kill(signal: NodeJS.Signals): void {
    if (this.#process.pid !== undefined && this.#process.exitCode === null) this.#process.kill(signal);
  }

  #readLines(): void {
    let rest = '';
    this.#process.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      this.#lines.push(...lines);
      for (const watcher of [...this.#watchers]) watcher();
    });
    this.#process.stdout.on('end', () => {
      if (rest !== '') this.#lines.push(rest);
    });
  }

  async #watchEnd(watchMemory: boolean): Promise<Ended> {
    const timer = watchMemory
      ? setInterval(() => {
          this.#peakAnonymous = Math.max(this.#peakAnonymous, anonymousBytes(this.#process.pid));
        }, POLL_MS)
      : undefined;
    let at = 0;
    this.#process.once('exit', () => {
      at = performance.now();
    });
    try {
      return await new Promise<Ended>((resolve, reject) => {
        this.#process.once('error', reject);
        this.#process.once('close', (code, signal) => {
          resolve({ code, signal, at, lines: this.#lines, stderr: this.#stderr });
        });
      });
    } finally {
      clearInterval(timer);
      running.delete(this);
    }
  }
}

/** For the last moment of this program: nothing that it started lives on. */
export function endAllChildren(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** Where a program is installed, if it is. Servers are often in the sbin folders, which a user's PATH may lack. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin', '/sbin'];
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** How a program ended and its most telling words, in one line. */
export function describeEnd({ code, signal, stderr, lines }: Ended): string {
  const said = stderr.trim().split('\n');
  // A stack begins with the error and ends with anything.
  const words = said.find((line) => /^\w*Error\b/.test(line)) ?? said.at(-1) ?? '';
  const how = signal === null ? `exit status ${code ?? 'unknown'}` : signal;
  return `${how}, ${words === '' ? (lines.at(-1) ?? 'without a word') : words}`;
}

/** RssAnon of a process: what it has taken for itself, without the files it has mapped or read. */
function anonymousBytes(pid: number | undefined): number {
  if (pid === undefined) return 0;
  try {
    const kibibytes = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return Number(kibibytes ?? 0) * 1024;
  } catch {
    // It ended between two looks.
    return 0;
  }
}
