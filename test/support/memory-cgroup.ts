import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';

/** Where memory can be limited, and in which file the limit is. */
interface Controller {
  readonly folder: string;
  readonly limit: string;
  /** The limit of memory and swap together, or of swap alone, so that nothing goes there; where there is one. */
  readonly swap: { readonly file: string; readonly isSum: boolean };
}

/** The memory controller of this machine, of either version of cgroups; undefined where none can be used. */
async function controller(): Promise<Controller | undefined> {
  for (const line of (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const folder = before.split(' ')[4] ?? '';
    const [type, , options = ''] = after.split(' ');
    if (type === 'cgroup' && options.split(',').includes('memory'))
      return { folder, limit: 'memory.limit_in_bytes', swap: { file: 'memory.memsw.limit_in_bytes', isSum: true } };
    if (type !== 'cgroup2') continue;
    const passedOn = await readFile(join(folder, 'cgroup.subtree_control'), 'utf8').catch(() => '');
    if (passedOn.trim().split(' ').includes('memory'))
      return { folder, limit: 'memory.max', swap: { file: 'memory.swap.max', isSum: false } };
  }
  return undefined;
}

async function makeCgroup({ folder, limit, swap }: Controller, bytes: number): Promise<string> {
  const cgroup = await mkdtemp(join(folder, 'ballast-test-'));
  try {
    await writeFile(join(cgroup, limit), String(bytes));
    const swapFile = join(cgroup, swap.file);
    if (existsSync(swapFile)) await writeFile(swapFile, swap.isSum ? String(bytes) : '0');
    return cgroup;
  } catch (error) {
    await rmdir(cgroup);
    throw error;
  }
}

/** Why memory cannot be limited here, found out by doing it; undefined when it can. */
export async function whyNoMemoryCgroup(): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return 'only root can make a cgroup';
  const found = await controller();
  if (found === undefined) return 'there is no cgroup memory controller here';
  try {
    await rmdir(await makeCgroup(found, 64 << 20));
    return undefined;
  } catch (error) {
    return `no cgroup with a memory limit can be made here: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/**
 * A cgroup whose members may have so much memory, until the end of the test.
 * @returns a command that runs another within it
 */
export async function withinMemory(t: ExecutionContext, bytes: number): Promise<readonly string[]> {
  const found = await controller();
  if (found === undefined) throw new Error('there is no cgroup memory controller here');
  const cgroup = await makeCgroup(found, bytes);
  t.teardown(async () => {
    // A member that has ended is in it for a moment longer.
    for (let tries = 100; ; tries--) {
      try {
        await rmdir(cgroup);
        return;
      } catch (error) {
        if (tries === 0) throw error;
        await sleep(50);
      }
    }
  });
  return ['sh', '-c', 'echo $$ > "$0" && exec "$@"', join(cgroup, 'cgroup.procs')];
}
