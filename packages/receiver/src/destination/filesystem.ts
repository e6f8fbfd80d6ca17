import { closeSync, fsync, fstatSync, fsyncSync, openSync, statfsSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { HugePageStore } from './huge-page-store.js';
import { MappedStore } from './mapped-store.js';
import { PositionalStore, writeFailed, type RegionStore, type SharedStore } from './region-store.js';
import { sinkStore } from './sink.js';

/** statfs(2) types, from linux/magic.h. */
const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;
const HUGETLBFS = 0x958458f6;

/** What matters of the filesystem that a destination lies on. */
export interface Filesystem {
  /** Contents go with the machine's power, so there is nothing to sync. */
  readonly volatile: boolean;
  /** Whether a file's blocks are its pages and nothing else. */
  readonly countsPages: boolean;
  /** Bytes of a huge page on hugetlbfs, where write(2) is not possible; undefined elsewhere. */
  readonly hugePageBytes: number | undefined;
  /** Bytes that an unprivileged writer can still have; Infinity where the filesystem does not say. */
  readonly availableBytes: number;
}

export function filesystemOf(path: string): Filesystem {
  const { type, bsize, blocks, bavail } = statfsSync(path);
  return {
    volatile: type === TMPFS || type === RAMFS || type === HUGETLBFS,
    countsPages: type === TMPFS,
    hugePageBytes: type === HUGETLBFS ? bsize : undefined,
    // A filesystem without a size (hugetlbfs without size=, ramfs) does not say; it is left to run out.
    availableBytes: blocks === 0 ? Infinity : bavail * bsize,
  };
}

/** The store for an open file: by pwrite, or through mappings on hugetlbfs. */
export function storeFor(
  fd: number,
  path: string,
  bytes: number,
  filesystem: Filesystem,
  mayHoldPages: boolean,
): RegionStore {
  const { hugePageBytes } = filesystem;
  if (hugePageBytes === undefined) {
    const file = { fd, path, hugePageBytes, countsPages: filesystem.countsPages };
    return new PositionalStore(file, bytes, mayHoldPages);
  }
  if (bytes % hugePageBytes !== 0) {
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${path} lies on hugetlbfs with pages of ${hugePageBytes} bytes, and the memory has ${bytes} bytes, which is no multiple; choose another folder`,
    );
  }
  return new HugePageStore(fd, path, bytes, hugePageBytes, mayHoldPages);
}

/** Threads that write to a file of tmpfs at a time, from which on its lock costs more than page faults. */
const MANY_WRITERS = 4;

/**
 * The store that another thread has opened, for as long as that one keeps it open.
 * @param writers how many threads write to it
 */
export function openShared({ file, bytes, mayHoldPages }: SharedStore, writers: number): RegionStore {
  if (file === undefined) return sinkStore(bytes);
  const { fd, path, hugePageBytes, countsPages } = file;
  if (hugePageBytes !== undefined) return new HugePageStore(fd, path, bytes, hugePageBytes, mayHoldPages);
  // Only tmpfs counts pages.
  const isMapped = countsPages && writers >= MANY_WRITERS;
  return isMapped ? new MappedStore(file, bytes, mayHoldPages) : new PositionalStore(file, bytes, mayHoldPages);
}

/** Bytes that a file occupies now. */
export function allocatedBytes(fd: number): number {
  return fstatSync(fd).blocks * 512;
}

const fsyncLater = promisify(fsync);

/** @throws BallastError NO_SPACE, WRITE: some filesystems find out only now */
export async function syncFile(fd: number, path: string): Promise<void> {
  try {
    await fsyncLater(fd);
  } catch (error) {
    throw writeFailed(path, 0, error);
  }
}

/**
 * Makes durable that a file has, or has lost, its name.
 * @param file the open file, where it still has one
 * @throws BallastError WRITE
 */
export function syncNameOf(path: string, file?: number): void {
  const folder = dirname(path);
  let fd: number | undefined;
  try {
    fd = openFolder(folder) ?? file;
    if (fd !== undefined) fsyncSync(fd);
  } catch (error) {
    // Some filesystems have nothing to sync of a folder.
    if (systemCode(error) !== 'EINVAL') throw writeFailed(folder, 0, error);
  } finally {
    if (fd !== undefined && fd !== file) closeSync(fd);
  }
}

/** @returns undefined for a folder that this user may write but not read: there a file that is synced takes its name along */
function openFolder(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if (systemCode(error) !== 'EACCES') throw error;
    return undefined;
  }
}

/** Whether what was found under a name is the file that is open, and not another that took its place. */
export function isSameFile(found: Stats | undefined, fd: number): boolean {
  const { dev, ino } = fstatSync(fd);
  return found?.dev === dev && found.ino === ino;
}

/** A file that memory may come to. */
interface Place {
  readonly path: string;
  readonly fd: number;
  readonly store: RegionStore;
  readonly filesystem: Filesystem;
}

/**
 * Checks that what may come fits, before any of it comes. Which of several files it is for is not known, so that only what
 * all of them together have no room for is too much. A filesystem may still fill up later.
 * @param neededBytes at most so many will be written
 * @throws BallastError NO_SPACE
 */
export function checkRoom(places: readonly Place[], neededBytes: number): void {
  const byDevice = new Map<number, { folder: string; available: number; held: number; bytes: number }>();
  for (const { path, fd, store, filesystem } of places) {
    const { dev } = fstatSync(fd);
    const known = byDevice.get(dev);
    byDevice.set(dev, {
      folder: known?.folder ?? dirname(path),
      available: filesystem.availableBytes,
      held: (known?.held ?? 0) + allocatedBytes(fd),
      bytes: (known?.bytes ?? 0) + store.bytes,
    });
  }
  const devices = [...byDevice.values()];
  // A small file needs no more of a large filesystem than its size.
  const room = devices.reduce((sum, { available, held, bytes }) => sum + Math.min(available + held, bytes), 0);
  const total = devices.reduce((sum, { bytes }) => sum + bytes, 0);
  if (Math.min(neededBytes, total) <= room) return;
  const available = devices
    .filter(({ available, held, bytes }) => available + held < bytes)
    .map(({ folder, available }) => `${folder} has ${available} bytes free`)
    .join(', ');
  const held = devices.reduce((sum, device) => sum + device.held, 0);
  throw new BallastError(
    ErrorCode.NO_SPACE,
    `${available} and the memory may need ${neededBytes - held}; make room there, choose another folder, or say --no-space-check if most of it is zeros`,
  );
}
