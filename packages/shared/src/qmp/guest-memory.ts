import { realpathSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import * as v from 'valibot';
import { BallastError, ErrorCode, systemCode } from '../errors.js';
import { PAGE_SIZE } from '../memory/page.js';
import type { QmpClient } from './client.js';
import { allProcesses, fileMappingsOf, type FileMapping } from './process-maps.js';
import { parseRamBlocks, type RamBlock } from './ram-blocks.js';

/** One memory backend of a guest: a region of the transfer. */
export interface GuestMemoryFile {
  /** The backend's id, by which QEMU's stream knows it on both sides. */
  readonly id: string;
  /** What to open: the file's own path, or the kernel's name of it where it was deleted. */
  readonly path: string;
  /** Size in bytes, of the backend and of the file. */
  readonly bytes: number;
}

/** All memory of a guest, accounted for. */
export interface GuestMemory {
  /** By ascending id: the same order on both sides. */
  readonly files: readonly GuestMemoryFile[];
  /** Bytes of the blocks that travel in QEMU's own stream: firmware, video memory… */
  readonly streamedBytes: number;
  /** The process that maps the files. */
  readonly pid: number;
}

/** Memory that may travel in QEMU's stream while the guest stands still. */
const MAX_STREAMED_BYTES = 192 << 20;

const memdevSchema = v.array(
  v.looseObject({ id: v.optional(v.string()), size: v.pipe(v.number(), v.safeInteger()), share: v.boolean() }),
);
const ramblockSchema = v.looseObject({ 'human-readable-text': v.string() });

/**
 * Finds the memory of QEMU's guest, and checks that all of it can be moved from outside: each backend is a file, shared,
 * mapped whole by this very process; each other block of memory is one that QEMU's stream carries.
 * @throws BallastError GUEST with what is wrong and how QEMU is to be started; QMP
 */
export async function findGuestMemory(qmp: QmpClient): Promise<GuestMemory> {
  const memdevs = await qmp.query('query-memdev', memdevSchema);
  const { 'human-readable-text': text } = await qmp.query('x-query-ramblock', ramblockSchema);
  const blocks = parseRamBlocks(text);
  const backends: { id: string; bytes: number; path: string }[] = [];
  const left = new Set(blocks);
  for (const { id, size, share } of memdevs) {
    const block = id === undefined ? undefined : blocks.find(({ name }) => name === id || name.endsWith(`/${id}`));
    // A backend that no device uses is no memory of the guest.
    if (id === undefined || block === undefined) continue;
    left.delete(block);
    if (block.usedBytes !== size || block.totalBytes !== size)
      throw unfit(`the memory backend ${id} has ${size} bytes, and the guest's block of it ${block.usedBytes}`);
    if (!share) throw unfit(`the memory backend ${id} is private to QEMU; start QEMU with ${EXPECTED}`);
    backends.push({ id, bytes: size, path: await pathOf(qmp, id) });
  }
  if (backends.length === 0) throw unfit(`QEMU has no memory backend; start it with ${EXPECTED}`);
  const streamedBytes = accountFor([...left]);
  const pid = processOf(qmp, backends);
  const files = backends.map((backend) => findFile(pid, backend)).sort((a, b) => (a.id < b.id ? -1 : 1));
  return { files, streamedBytes, pid };
}

const EXPECTED = '-object memory-backend-file,id=ID,size=SIZE,mem-path=FILE,share=on -numa node,memdev=ID';

function unfit(message: string): BallastError {
  return new BallastError(ErrorCode.GUEST, message);
}

/** @throws BallastError GUEST when the backend is no file */
async function pathOf(qmp: QmpClient, id: string): Promise<string> {
  try {
    return await qmp.query('qom-get', v.string(), { path: `/objects/${id}`, property: 'mem-path' });
  } catch (error) {
    if (qmp.failure !== undefined) throw error;
    throw new BallastError(
      ErrorCode.GUEST,
      `the memory backend ${id} is not a file (it has no mem-path); start QEMU with ${EXPECTED}`,
      { cause: error },
    );
  }
}

/**
 * What is neither a backend's nor small is memory that nobody would move, or that would stop the guest for long.
 * @returns bytes that QEMU's stream carries
 */
function accountFor(blocks: readonly RamBlock[]): number {
  const bytes = blocks.reduce((sum, block) => sum + block.usedBytes, 0);
  if (bytes <= MAX_STREAMED_BYTES) return bytes;
  const largest = blocks.reduce((most, block) => (block.usedBytes > most.usedBytes ? block : most));
  throw unfit(
    `${bytes} bytes of the guest's memory belong to no shared backend (the largest block is ${largest.name} with ${largest.usedBytes}); at most ${MAX_STREAMED_BYTES} can travel with the device state`,
  );
}

/**
 * The process that maps the first backend: the one that listens at the monitor, unless somebody else made the socket for
 * it (libvirt does).
 * @throws BallastError GUEST
 */
function processOf(qmp: QmpClient, [first]: readonly { id: string; bytes: number; path: string }[]): number {
  if (first === undefined) throw new BallastError(ErrorCode.INTERNAL, 'a guest without memory');
  const maps = (pid: number): boolean => mappingsOf(pid, first).length > 0;
  const listener = qmp.peer?.pid;
  if (listener !== undefined && maps(listener)) return listener;
  const candidates = allProcesses().filter((pid) => pid !== process.pid && maps(pid));
  const [pid] = candidates;
  if (pid !== undefined && candidates.length === 1) return pid;
  throw unfit(
    candidates.length === 0
      ? `no process that can be looked at maps ${first.path}, the memory backend ${first.id} of QEMU at ${qmp.path}; run as the user of QEMU, or as root, and in its mount namespace`
      : `several processes map ${first.path} (${candidates.join(', ')}), and none of them listens at ${qmp.path}; a memory file may belong to one guest only`,
  );
}

/**
 * What a process maps of a backend's file. With a folder as mem-path QEMU makes a file in it and deletes its name
 * (file_ram_open() in softmmu/physmem.c): "qemu_back_mem.ID.XXXXXX".
 */
function mappingsOf(pid: number, { id, path }: { id: string; path: string }): FileMapping[] {
  let isFolder = false;
  let inode: number | undefined;
  let real = path;
  try {
    real = realpathSync(path);
    const stat = statSync(real);
    isFolder = stat.isDirectory();
    inode = stat.ino;
  } catch {
    // Deleted by name, or in another mount namespace: the kernel's own list has to do.
  }
  const name = `qemu_back_mem.${id.replaceAll('/', '_')}.`;
  return fileMappingsOf(pid).filter((mapping) => {
    if (isFolder) return dirname(mapping.path) === real && basename(mapping.path).startsWith(name);
    if (mapping.path !== real) return false;
    return mapping.deleted || inode === undefined || mapping.inode === inode;
  });
}

/** @throws BallastError GUEST when the file is not the one that QEMU maps, whole and shared */
function findFile(pid: number, backend: { id: string; bytes: number; path: string }): GuestMemoryFile {
  const { id, bytes, path } = backend;
  const mappings = mappingsOf(pid, backend).sort((a, b) => a.offset - b.offset);
  const [first] = mappings;
  if (first === undefined) {
    throw unfit(
      `QEMU (process ${pid}) does not map ${path}, its memory backend ${id}: the file of that name is another one by now; it was replaced after QEMU opened it`,
    );
  }
  if (mappings.some((mapping) => !mapping.shared))
    throw unfit(`QEMU maps ${path} privately; start it with ${EXPECTED}`);
  if (first.offset !== 0)
    throw unfit(`QEMU maps ${path} from offset ${first.offset} on; a memory file must begin where the memory does`);
  if (mappings.reduce((sum, mapping) => sum + mapping.bytes, 0) < bytes)
    throw unfit(`QEMU does not map all ${bytes} bytes of ${path}`);
  const opened = first.deleted ? `/proc/${pid}/map_files/${first.range}` : realpathSync(path);
  const stat = statOf(opened, path);
  if (stat.ino !== first.inode)
    throw unfit(`${path} is not the file that QEMU maps; it was replaced after QEMU opened it`);
  if (isKnownToDiffer(pid, first, stat)) {
    throw unfit(
      `${path} is another file for QEMU (process ${pid}) than here, on another filesystem; run in QEMU's mount namespace`,
    );
  }
  if (stat.size !== bytes || bytes % PAGE_SIZE !== 0)
    throw unfit(`${path} has ${stat.size} bytes and the memory backend ${id} ${bytes}; they must be equal`);
  return { id, path: opened, bytes };
}

/**
 * A QEMU with mounts of its own may have another file of the same name, and of the same number: those of tmpfs are small.
 * The device numbers of the kernel's list are of no use, so what QEMU maps is looked at as a file; where only root may do
 * that, through QEMU's own root folder.
 */
function isKnownToDiffer(pid: number, { range, path }: FileMapping, here: { dev: number; ino: number }): boolean {
  for (const name of [`/proc/${pid}/map_files/${range}`, `/proc/${pid}/root${path}`]) {
    try {
      const { dev, ino } = statSync(name);
      return dev !== here.dev || ino !== here.ino;
    } catch {
      // Not allowed, or deleted.
    }
  }
  return false;
}

function statOf(opened: string, path: string): { dev: number; ino: number; size: number } {
  try {
    return statSync(opened);
  } catch (error) {
    throw new BallastError(
      ErrorCode.GUEST,
      `the deleted memory file ${path} cannot be reached through ${opened} (${systemCode(error) ?? 'unknown error'}); run as root`,
      { cause: error },
    );
  }
}
