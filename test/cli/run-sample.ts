import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { type Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const SAMPLE = fileURLToPath(new URL('sample-program.js', import.meta.url));

/** What a run of the sample program left. */
export interface SampleRun {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Starts the sample program with pipes for stdout and stderr.
 * @param through a command that is given the sample's, and runs it
 */
export function startSample(
  args: readonly string[],
  through: readonly string[] = [],
): ChildProcessByStdio<null, Readable, Readable> {
  const [command, ...rest] = [...through, process.execPath, SAMPLE, ...args];
  return spawn(command ?? '', rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: '1' },
  });
}

/** Runs the sample program to its end. */
export async function runSample(...args: string[]): Promise<SampleRun> {
  const child = startSample(args);
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { status: child.exitCode, stdout, stderr };
}
