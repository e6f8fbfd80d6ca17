import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, rmdir, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';

const run = promisify(execFile);

/** Set to 1 where the tests run as root and may mount: then what is missing fails a test and does not skip it. */
const REQUIRE_VARIABLE = 'BALLAST_REQUIRE_ROOT';

export type GatedTest = (title: string, body: (t: ExecutionContext) => Promise<void>) => void;

/**
 * The `test` of scenarios that need something of the machine. Where it is missing each of them is skipped and says why
 * in its title. One after the other, since they share what the machine has one of.
 * @param missing what the machine lacks; undefined when it has all
 */
export function testUnless(missing: string | undefined): GatedTest {
  if (missing === undefined)
    return (title, body) => {
      test.serial(title, body);
    };
  if (process.env[REQUIRE_VARIABLE] === '1') {
    return (title) => {
      test(title, (t) => {
        t.fail(`${REQUIRE_VARIABLE}=1, but ${missing}`);
      });
    };
  }
  return (title, body) => {
    test.skip(`${title} [${missing}]`, body);
  };
}

/** Why a filesystem of this type cannot be mounted here, found out by mounting one; undefined when it can. */
export async function whyNoMount(type: string, options: string): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return `only root can mount ${type}`;
  const folder = await mkdtemp(join(tmpdir(), 'ballast-mount-'));
  try {
    await run('mount', ['-t', type, '-o', options, 'ballast-test', folder]);
    await run('umount', [folder]);
    return undefined;
  } catch (error) {
    return `${type} cannot be mounted here: ${firstLine(error)}`;
  } finally {
    await rmdir(folder);
  }
}

/** Mounts a filesystem on a folder that exists, until the end of the test. */
export async function mount(
  t: ExecutionContext,
  folder: string,
  type: string,
  options: string,
  source = 'ballast-test',
): Promise<void> {
  await run('mount', ['-t', type, '-o', options, source, folder]);
  t.teardown(async () => {
    // Lazily: a transfer that failed a test may still have a file open.
    await run('umount', ['-l', folder]);
  });
}

/** Why there can be no ext4 in a file here; undefined when there can. */
export async function whyNoLoop(): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return 'only root can mount ext4';
  const folder = await mkdtemp(join(tmpdir(), 'ballast-loop-'));
  try {
    await makeExt4(join(folder, 'disk'), 16 << 20);
    await run('mkdir', [join(folder, 'mnt')]);
    await run('mount', ['-o', 'loop', join(folder, 'disk'), join(folder, 'mnt')]);
    await run('umount', [join(folder, 'mnt')]);
    return undefined;
  } catch (error) {
    return `ext4 in a file cannot be mounted here: ${firstLine(error)}`;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export async function makeExt4(path: string, bytes: number): Promise<void> {
  await writeFile(path, '');
  await truncate(path, bytes);
  await run('mkfs.ext4', ['-q', '-F', path]);
}

const HUGE_PAGES = '/proc/sys/vm/nr_hugepages';

/** Reserves huge pages on top of those that there are, until the end of the test; false where the machine has too few. */
export async function reserveHugePages(t: ExecutionContext, count: number): Promise<boolean> {
  const before = Number(await readFile(HUGE_PAGES, 'utf8'));
  t.teardown(async () => {
    await writeFile(HUGE_PAGES, String(before));
  });
  await writeFile(HUGE_PAGES, String(before + count));
  return Number(await readFile(HUGE_PAGES, 'utf8')) >= before + count;
}

/** Why no huge pages can be reserved here; undefined when they can. */
export async function whyNoHugePages(count: number): Promise<string | undefined> {
  const noMount = await whyNoMount('hugetlbfs', 'pagesize=2M');
  if (noMount !== undefined) return noMount;
  const before = await readFile(HUGE_PAGES, 'utf8');
  try {
    await writeFile(HUGE_PAGES, String(Number(before) + count));
    const now = Number(await readFile(HUGE_PAGES, 'utf8'));
    return now >= Number(before) + count ? undefined : `no ${count} huge pages can be reserved here`;
  } catch (error) {
    return `no huge pages can be reserved here: ${firstLine(error)}`;
  } finally {
    await writeFile(HUGE_PAGES, before).catch(() => undefined);
  }
}

/** Why system calls cannot be made to fail by strace here; undefined when they can. */
export async function whyNoTracing(): Promise<string | undefined> {
  try {
    await run('strace', ['-qq', '-o', '/dev/null', '-e', 'inject=renameat2:error=EINVAL', 'true']);
    return undefined;
  } catch (error) {
    return `strace cannot be used here: ${firstLine(error)}`;
  }
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split('\n').at(-1) ?? text;
}
