import { accessSync, constants, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endAllChildren } from './child.js';
import { formatBytes } from './format.js';

/** A folder that files can be made in. */
export interface Folder {
  readonly path: string;
  readonly kind: 'tmpfs' | 'disk';
  readonly roomBytes: number;
}

/** A folder of our own inside another; it is gone when the program ends, however it ends. */
export interface PrivateFolder extends Folder {
  /** A path inside the folder. */
  file(name: string): string;
  remove(): void;
}

/** Left alone in memory when files are put on a tmpfs: the two programs and everything else live there too. */
const MEMORY_RESERVE = 1 << 30;
/** tmpfs mounts that belong to the system and not to us, though root may write there. */
const NOT_OURS = ['/proc', '/sys', '/run', '/dev/pts', '/var/lib', '/mnt'];

/**
 * Finds a folder with room: /dev/shm, then any other tmpfs, then the system's temporary folder.
 * Where none has the wanted room, the one with the most is taken, and the caller sees it in `roomBytes`.
 */
export function findFolder(wantedBytes: number): Folder {
  const seen = new Set<string>();
  let best: Folder | undefined;
  for (const candidate of candidates()) {
    if (seen.has(candidate.path)) continue;
    seen.add(candidate.path);
    const roomBytes = room(candidate);
    if (roomBytes === undefined) continue;
    const folder = { ...candidate, roomBytes };
    if (roomBytes >= wantedBytes) return folder;
    if (best === undefined || roomBytes > best.roomBytes) best = folder;
  }
  if (best === undefined)
    throw new Error(`no folder can be written to; expected /dev/shm or ${tmpdir()} to be writable`);
  return best;
}

/** The folder that the user named, with its kind and room. */
export function namedFolder(path: string): Folder {
  const folder = { path, kind: onTmpfs(path) ? ('tmpfs' as const) : ('disk' as const) };
  const roomBytes = room(folder);
  if (roomBytes === undefined) throw new Error(`${path} cannot be written to; expected a writable folder`);
  return { ...folder, roomBytes };
}

/** Makes a folder of our own in the one found, and sees to it that it goes away on every path. */
export function makePrivateFolder(folder: Folder): PrivateFolder {
  const path = mkdtempSync(join(folder.path, 'ballast-bench-'));
  const remove = (): void => {
    // A child that was just ended may still be making a file: try again for a moment.
    rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 });
  };
  const atExit = (): void => {
    endAllChildren();
    remove();
  };
  process.once('exit', atExit);
  const removeSignals = exitOnSignals();
  return {
    ...folder,
    path,
    file: (name) => join(path, name),
    remove() {
      process.off('exit', atExit);
      removeSignals();
      remove();
    },
  };
}

/** One line that says which folder was taken. */
export function describeFolder(folder: Folder): string {
  const kind = folder.kind === 'tmpfs' ? 'in memory (tmpfs)' : 'on a disk; times there say more about the disk';
  return `Files are made in ${folder.path}, ${kind}, ${formatBytes(folder.roomBytes)} free.`;
}

function* candidates(): Generator<Pick<Folder, 'path' | 'kind'>> {
  const mounted = tmpfsMounts();
  if (mounted.includes('/dev/shm')) yield { path: '/dev/shm', kind: 'tmpfs' };
  for (const path of mounted) {
    if (!NOT_OURS.some((prefix) => path === prefix || path.startsWith(`${prefix}/`))) yield { path, kind: 'tmpfs' };
  }
  yield { path: tmpdir(), kind: onTmpfs(tmpdir()) ? 'tmpfs' : 'disk' };
}

/** Where tmpfs filesystems are mounted, writable ones only. */
function tmpfsMounts(): string[] {
  return readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, , type, options]) => type === 'tmpfs' && options?.split(',').includes('rw') === true)
    .map(([, path]) => (path ?? '').replaceAll('\\040', ' '));
}

function onTmpfs(path: string): boolean {
  const TMPFS_MAGIC = 0x0102_1994;
  return statfsSync(path).type === TMPFS_MAGIC;
}

/** Bytes that can be written there, or undefined where nothing can. */
function room({ path, kind }: Pick<Folder, 'path' | 'kind'>): number | undefined {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    const { bavail, bsize } = statfsSync(path);
    if (kind === 'disk') return bavail * bsize;
    // A tmpfs promises half of all memory, free or not; and this process may be allowed less than the machine has.
    return Math.max(0, Math.min(bavail * bsize, process.availableMemory() - MEMORY_RESERVE));
  } catch {
    return undefined;
  }
}

/** Makes the usual signals end the program through its exit handlers; returns what undoes it. */
function exitOnSignals(): () => void {
  const numbers = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };
  const handlers = Object.entries(numbers).map(([signal, number]) => {
    const handler = (): void => {
      process.exit(128 + number);
    };
    process.once(signal, handler);
    return { signal, handler };
  });
  return () => {
    for (const { signal, handler } of handlers) process.off(signal, handler);
  };
}
