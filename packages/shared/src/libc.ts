/**
 * The one place that speaks to libc. Everything here is a thin, typed name for a system call that Node.js does not
 * offer; failures are thrown as SystemCallError with the errno's name in `code`, as Node's own errors have it.
 */
import type * as KoffiLibrary from 'koffi';
import { getSystemErrorName } from 'node:util';
import { nativeLibrary } from './native-library.js';

const koffi = nativeLibrary('koffi') as typeof KoffiLibrary;
const libc = koffi.load(null);

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_FIXED = 0x10;
const MAP_NORESERVE = 0x4000;
const MADV_POPULATE_READ = 22;
const MADV_POPULATE_WRITE = 23;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const F_DUPFD_CLOEXEC = 1030;
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;
const AT_FDCWD = -100;
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

type MemmoveCall = (to: Uint8Array, from: Uint8Array, length: number) => number;
type PreadCall = (fd: number, into: Uint8Array, length: number, offset: number) => number;
type PwriteCall = (fd: number, from: Uint8Array, length: number, offset: number) => number;
type LseekCall = (fd: number, offset: number, whence: number) => number;
type FallocateCall = (fd: number, mode: number, offset: number, length: number) => number;
type MmapCall = (
  address: bigint | null,
  length: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
) => bigint | null;
type MunmapCall = (address: bigint, length: number) => number;
type FlockCall = (fd: number, operation: number) => number;
type CopyRangeCall = (
  fromFd: number,
  from: [number],
  toFd: number,
  to: [number],
  length: number,
  flags: number,
) => number;
type SetSocketOptionCall = (fd: number, level: number, option: number, value: Buffer, length: number) => number;
type GetSocketOptionCall = (fd: number, level: number, option: number, value: Buffer, length: [number]) => number;
type RenameCall = (fromDir: number, from: string, toDir: number, to: string, flags: number) => number;

const memmove = libc.func('uint64_t memmove(void *to, const void *from, size_t length)') as MemmoveCall;
const pread = libc.func('int64_t pread(int fd, void *into, size_t length, int64_t offset)') as PreadCall;
const pwrite = libc.func('int64_t pwrite(int fd, const void *from, size_t length, int64_t offset)') as PwriteCall;
const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)') as LseekCall;
const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as FallocateCall;
const mmap = libc.func(
  'void *mmap(void *address, size_t length, int prot, int flags, int fd, int64_t offset)',
) as MmapCall;
const madvise = libc.func('int madvise(void *address, size_t length, int advice)') as (
  address: bigint,
  length: number,
  advice: number,
) => number;
const munmap = libc.func('int munmap(void *address, size_t length)') as MunmapCall;
const flock = libc.func('int flock(int fd, int operation)') as FlockCall;
const copyFileRange = libc.func(
  'int64_t copy_file_range(int fromFd, _Inout_ int64_t *from, int toFd, _Inout_ int64_t *to, size_t length, unsigned int flags)',
) as CopyRangeCall;
const fcntl = libc.func('int fcntl(int fd, int command, long argument)') as (
  fd: number,
  command: number,
  argument: number,
) => number;
const renameat2 = libc.func(
  'int renameat2(int fromDir, const char *from, int toDir, const char *to, unsigned int flags)',
) as RenameCall;

const setsockopt = libc.func(
  'int setsockopt(int fd, int level, int option, const void *value, uint32_t length)',
) as SetSocketOptionCall;
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int option, void *value, _Inout_ uint32_t *length)',
) as GetSocketOptionCall;

/** A system call that failed; `code` is the errno's name ("ENOSPC"), as in Node's own errors. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';
  readonly code: string;
  readonly syscall: string;

  constructor(syscall: string, errno: number) {
    const code = getSystemErrorName(-errno);
    super(`${syscall}: ${code}`);
    this.code = code;
    this.syscall = syscall;
  }
}

function failure(syscall: string): SystemCallError {
  return new SystemCallError(syscall, koffi.errno());
}

/** Where bytes lie in this process's memory. They stay there, since V8 keeps the contents of buffers out of its heap. */
export function addressOf(bytes: Uint8Array): number {
  // Moves nothing, and returns the first argument.
  return memmove(bytes, bytes, 0);
}

/**
 * pread(2). Node's own is JavaScript around the same call, which V8 has to compile first and which takes up to 0.3 µs more:
 * that counts where each page is alone.
 * @param offset in bytes
 * @returns bytes read: fewer than `into` has room for at the end of the file, and perhaps before
 */
export function readAt(fd: number, into: Uint8Array, offset: number): number {
  for (;;) {
    const count = pread(fd, into, into.length, offset);
    if (count >= 0) return count;
    if (koffi.errno() !== koffi.os.errno['EINTR']) throw failure('pread');
  }
}

/**
 * pwrite(2), as `readAt`.
 * @param offset in bytes
 * @returns bytes written, perhaps fewer than `from` has
 */
export function writeAt(fd: number, from: Uint8Array, offset: number): number {
  for (;;) {
    const count = pwrite(fd, from, from.length, offset);
    if (count >= 0) return count;
    if (koffi.errno() !== koffi.os.errno['EINTR']) throw failure('pwrite');
  }
}

/** lseek(2) with `whence`; null where the kernel says that nothing of the kind follows (ENXIO). */
function seek(fd: number, offset: number, whence: number): number | null {
  const found = lseek(fd, offset, whence);
  if (found >= 0) return found;
  if (koffi.errno() === koffi.os.errno['ENXIO']) return null;
  throw failure('lseek');
}

/** Offset in bytes of the first data at or after `offset`, or null when only a hole follows. Moves the file's position. */
export function seekData(fd: number, offset: number): number | null {
  return seek(fd, offset, SEEK_DATA);
}

/** Offset in bytes of the first hole at or after `offset` (the end of the file counts as one), or null beyond the end. */
export function seekHole(fd: number, offset: number): number | null {
  return seek(fd, offset, SEEK_HOLE);
}

/** Gives the blocks of [offset, offset + length) bytes back to the filesystem; the range reads as zeros afterwards. */
export function punchHole(fd: number, offset: number, length: number): void {
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) !== 0) throw failure('fallocate');
}

/** Allocates blocks for [offset, offset + length) bytes, so that a later touch through a mapping cannot fail for want of room. */
export function allocateBlocks(fd: number, offset: number, length: number): void {
  if (fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length) !== 0) throw failure('fallocate');
}

/**
 * Copies bytes between two files at the same offset, inside the kernel; filesystems that can share blocks do so.
 * Fills holes, so it is for ranges that hold data.
 * @param length bytes, below 2^31
 * @returns bytes copied: fewer than asked for at the end of the file that is read
 */
export function copyRange(fromFd: number, toFd: number, offset: number, length: number): number {
  const copied = copyFileRange(fromFd, [offset], toFd, [offset], length, 0);
  if (copied < 0) throw failure('copy_file_range');
  return copied;
}

/** A window of a file in memory. */
export interface Mapping {
  /** What the window shows; must not be touched after `unmap`. */
  readonly bytes: Buffer;
  /**
   * Shows another part of the same file in the same place, so that `bytes` stays the one buffer that it is: each new one
   * counts as garbage of its whole size, and a full collection follows every few of them.
   * @param offset in bytes, a multiple of the filesystem's page
   * @param length bytes, at most those of the window; what lies behind them is undefined
   */
  slide(offset: number, length: number): void;
  /**
   * Makes a part of what the window shows ready to be read, without a page fault for each 64 KiB of it. A hint: where the
   * kernel cannot do it (before Linux 5.14), nothing happens.
   * @param at byte of the window, a multiple of the page
   */
  populate(at: number, length: number): void;
  /**
   * Makes a part of what the window shows ready to be written, pages that the file lacks included.
   * @param at byte of the window, a multiple of the page
   * @returns false where that is not possible (no room, no memory, Linux before 5.14): touching it may be SIGBUS
   */
  makeWritable(at: number, length: number): boolean;
  unmap(): void;
}

/**
 * Maps `length` bytes of a file at `offset` (a multiple of the filesystem's page), shared. Touching a byte beyond the
 * end of the file, or one that the filesystem has no room for, kills the process with SIGBUS: the caller makes sure.
 * @param length bytes, at most 4 GiB (the largest Buffer of Node 20)
 */
export function mapShared(fd: number, offset: number, length: number, writable: boolean): Mapping {
  const prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const flags = MAP_SHARED | MAP_NORESERVE;
  const address = mmap(null, length, prot, flags, fd, offset);
  if (address === null || address === MAP_FAILED) throw failure('mmap');
  return {
    bytes: Buffer.from(koffi.view(address, length)),
    slide(to, bytes) {
      if (mmap(address, Math.min(bytes, length), prot, flags | MAP_FIXED, fd, to) !== address) throw failure('mmap');
    },
    populate(at, bytes) {
      madvise(address + BigInt(at), bytes, MADV_POPULATE_READ);
    },
    makeWritable: (at, bytes) => madvise(address + BigInt(at), bytes, MADV_POPULATE_WRITE) === 0,
    unmap() {
      if (munmap(address, length) !== 0) throw failure('munmap');
    },
  };
}

/**
 * Another descriptor of the same open file or socket, which stays when `fd` is closed. Its owner closes it. As all that
 * Node opens it is not handed down to programs that are started.
 */
export function duplicate(fd: number): number {
  const copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw failure('fcntl');
  return copy;
}

/** Takes an exclusive advisory lock on the open file; false when someone else holds one. It goes with the process. */
export function tryLock(fd: number): boolean {
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  if (koffi.errno() === koffi.os.errno['EWOULDBLOCK'] || koffi.errno() === koffi.os.errno['EAGAIN']) return false;
  throw failure('flock');
}

/**
 * Gives the lock back. Closing the descriptor alone would not: a process that is just being started holds another one of the
 * same open file until it becomes another program.
 */
export function unlock(fd: number): void {
  if (flock(fd, LOCK_UN) !== 0) throw failure('flock');
}

/**
 * Renames without ever replacing.
 * @throws SystemCallError EEXIST when `to` exists; EINVAL where the filesystem cannot, as NFS
 */
export function renameNoReplace(from: string, to: string): void {
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) !== 0) throw failure('renameat2');
}

/**
 * Lets two names change places, at once for all who look.
 * @throws SystemCallError ENOENT when one of them is not there; EINVAL where the filesystem cannot
 */
export function exchangeNames(one: string, other: string): void {
  if (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) !== 0) throw failure('renameat2');
}

/** setsockopt(2). `value` is what the option takes, in the machine's byte order. */
export function setSocketOption(fd: number, level: number, option: number, value: Buffer): void {
  if (setsockopt(fd, level, option, value, value.length) !== 0) throw failure('setsockopt');
}

/** getsockopt(2) of an option whose value has `length` bytes, in the machine's byte order. */
export function getSocketOption(fd: number, level: number, option: number, length: number): Buffer {
  const value = Buffer.alloc(length);
  if (getsockopt(fd, level, option, value, [length]) !== 0) throw failure('getsockopt');
  return value;
}
