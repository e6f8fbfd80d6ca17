import { closeSync, fstatSync, ftruncateSync, openSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { PAGE, allocatedPages, pageContents, writeMemoryFile, type Fill, type Layout } from '../support/memory-file.js';

/** The type that Linux gives tmpfs in statfs(2). */
const TMPFS_MAGIC = 0x01021994;
export const MIB = 1 << 20;
/** Bytes of a transfer that are no page: tables, control messages, maps. */
export const OVERHEAD = 1 / 32;

/** A memory file of a guest, and the name of the copy to make, in a folder of the test's own. */
export async function scene(
  t: ExecutionContext,
  layout: Layout,
  copies = 2,
): Promise<{ folder: string; source: string; copy: string; partial: string }> {
  const bytes = layout.reduce((sum, run) => sum + run.pages, 0) * PAGE;
  const folder = await temporaryFolder(t, copies * bytes + 16 * MIB);
  const source = join(folder, 'guest.mem');
  const copy = join(folder, 'copy.mem');
  writeMemoryFile(source, layout);
  return { folder, source, copy, partial: `${copy}.partial` };
}

/** Writes pages of this fill over those that a file has, as `writeMemoryFile` would with this seed. */
export function overwritePages(path: string, pages: Iterable<number>, fill: Fill, seed: number): void {
  const fd = openSync(path, 'r+');
  try {
    for (const page of pages) writeSync(fd, pageContents(fill, page, seed), 0, PAGE, page * PAGE);
  } finally {
    closeSync(fd);
  }
}

export function overwriteBytes(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  try {
    writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
}

/** Makes a file as long as that; longer by a hole. */
export function resize(path: string, bytes: number): void {
  const fd = openSync(path, 'r+');
  try {
    ftruncateSync(fd, bytes);
  } finally {
    closeSync(fd);
  }
}

/** What must not change of a file that is only read. */
export function identityOf(path: string): { size: number; blocks: number; mtimeMs: number; ino: number } {
  const fd = openSync(path, 'r');
  try {
    const { size, blocks, mtimeMs, ino } = fstatSync(fd);
    return { size, blocks, mtimeMs, ino };
  } finally {
    closeSync(fd);
  }
}

/** Asserts that a file takes so many pages and no more, on a filesystem that counts each of them. */
export function takesPages(t: ExecutionContext, path: string, pages: number): void {
  if (statfsSync(path).type === TMPFS_MAGIC) t.is(allocatedPages(path), pages, 'what is zero or free is a hole');
}

/** Whole numbers below a bound, the same for the same seed. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
