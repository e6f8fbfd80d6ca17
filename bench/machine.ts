import { arch, availableParallelism, cpus, release, totalmem } from 'node:os';
import { Child, findProgram } from './child.js';

/** What the figures were measured on. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  /** What each peer calls itself; absent peers are absent. */
  readonly peers: Readonly<Record<string, string>>;
}

/** Asks the machine and the programs on it what they are. */
export async function describeMachine(node: string): Promise<Machine> {
  const peers: Record<string, string> = {};
  for (const name of ['nbdkit', 'nbdcopy', 'rsync', 'iperf3']) {
    const version = await versionOf(name);
    if (version !== undefined) peers[name] = version;
  }
  return {
    processor: `${cpus()[0]?.model.trim() ?? 'unknown processor'} (${arch()})`,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    // The first two numbers say what the kernel can do; the rest is the habit of whoever built it.
    kernel: `Linux ${release().split('.').slice(0, 2).join('.')}`,
    node: (await versionOf(node)) ?? 'unknown',
    peers,
  };
}

/** The version in the first line that a program says about itself. */
async function versionOf(program: string): Promise<string | undefined> {
  const path = program.includes('/') ? program : findProgram(program);
  if (path === undefined) return undefined;
  const { lines } = await new Child(path, ['--version']).ended;
  return /\d+(\.\d+)+/.exec(lines[0] ?? '')?.[0];
}
