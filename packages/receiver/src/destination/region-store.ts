import { fstatSync } from 'node:fs';
import { BallastError, ErrorCode, outOfDescriptors, systemCode, systemReason } from '@ballast/shared/errors';
import { copyRange, punchHole, readAt, seekData, seekHole, writeAt, type Extent } from '@ballast/shared/memory';

/** Pages that can be read. All offsets and lengths in bytes. */
export interface ReadableRegion {
  /** Size in bytes. */
  readonly bytes: number;
  /**
   * Reads what is stored now.
   * @throws BallastError READ
   */
  read(offset: number, into: Buffer): void;
  /**
   * The first run of bytes at or after `offset` that the filesystem has data for; undefined when only holes follow.
   * @throws BallastError READ
   */
  nextData(offset: number): Extent | undefined;
  /**
   * Where data begins at or after `offset`, in bytes; undefined where there is none. Unlike `nextData` it does not look
   * for the end of the data, which costs a step for each page: whoever asks leaf by leaf must not pay that each time.
   */
  nextDataStart(offset: number): number | undefined;
}

export interface SharedFile {
  readonly fd: number;
  readonly path: string;
  /** Bytes of a page on hugetlbfs; undefined elsewhere. */
  readonly hugePageBytes: number | undefined;
  /** Whether the filesystem counts pages as `RegionStore.storedBytes` wants. */
  readonly countsPages: boolean;
}

/** A store as a thread hands it to another: all threads of a process share its descriptors. */
export interface SharedStore {
  /** Undefined for a sink. */
  readonly file: SharedFile | undefined;
  readonly bytes: number;
  readonly mayHoldPages: boolean;
}

/** Where the pages of one region end up. */
export interface RegionStore extends ReadableRegion {
  /** For another thread. */
  readonly shared: SharedStore;
  /**
   * Whether there may be something to release: false for a file that was made empty, as long as one connection writes it.
   * Another may bring another memory, or other pages of this one.
   */
  mayHoldPages: boolean;
  /**
   * Bytes of pages that are stored, where the filesystem counts each of them and nothing else, as tmpfs does, and hugetlbfs
   * huge ones; undefined elsewhere.
   */
  readonly storedBytes?: number | undefined;
  /** @throws BallastError NO_SPACE, WRITE */
  write(offset: number, from: Buffer): void;
  /**
   * Copies `length` bytes at `offset` from the same place of another file; shares the blocks where the filesystem can.
   * @throws BallastError READ, WRITE, NO_SPACE
   */
  copyFrom(source: ReadableRegion & { readonly fd: number }, offset: number, length: number): void;
  /**
   * Makes [start, end) read as zeros and gives its blocks back, where there are any.
   * @throws BallastError WRITE
   */
  release(start: number, end: number): void;
  /** Lets go of mappings. The file descriptor belongs to the destination. */
  close(): void;
}

/** A file written with pwrite(2): a full filesystem is an error, not a signal. */
export class PositionalStore implements RegionStore {
  readonly bytes: number;
  mayHoldPages: boolean;
  #fd: number;
  #path: string;
  #countsPages: boolean;
  #copiesInKernel = true;

  constructor({ fd, path, countsPages }: SharedFile, bytes: number, mayHoldPages: boolean) {
    this.#fd = fd;
    this.#path = path;
    this.#countsPages = countsPages;
    this.bytes = bytes;
    this.mayHoldPages = mayHoldPages;
  }

  get storedBytes(): number | undefined {
    return this.#countsPages ? fstatSync(this.#fd).blocks * 512 : undefined;
  }

  get shared(): SharedStore {
    const file = { fd: this.#fd, path: this.#path, hugePageBytes: undefined, countsPages: this.#countsPages };
    return { file, bytes: this.bytes, mayHoldPages: this.mayHoldPages };
  }

  write(offset: number, from: Buffer): void {
    try {
      for (let done = 0; done < from.length;) {
        done += writeAt(this.#fd, done === 0 ? from : from.subarray(done), offset + done);
      }
    } catch (error) {
      throw writeFailed(this.#path, offset, error);
    }
  }

  read(offset: number, into: Buffer): void {
    readFully(this.#fd, this.#path, offset, into);
  }

  nextData(offset: number): Extent | undefined {
    return nextDataOf(this.#fd, this.#path, offset, this.bytes);
  }

  nextDataStart(offset: number): number | undefined {
    return dataStartOf(this.#fd, this.#path, offset, this.bytes);
  }

  copyFrom(source: ReadableRegion & { readonly fd: number }, offset: number, length: number): void {
    try {
      if (this.#copiesInKernel && copyRange(source.fd, this.#fd, offset, length) === length) return;
    } catch {
      // Two filesystems that cannot, or a file that fails: which of the two it is, reading and writing will tell.
      this.#copiesInKernel = false;
    }
    const bytes = Buffer.allocUnsafe(length);
    source.read(offset, bytes);
    this.write(offset, bytes);
  }

  release(start: number, end: number): void {
    if (!this.mayHoldPages) return;
    try {
      punchHole(this.#fd, start, end - start);
    } catch (error) {
      const code = systemCode(error);
      if (code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw writeFailed(this.#path, start, error);
      this.#writeZeros(start, end);
    }
  }

  close(): void {
    // Holds nothing but the descriptor, which is not its own.
  }

  /** For filesystems that cannot punch: the range reads right, and keeps its blocks. */
  #writeZeros(start: number, end: number): void {
    const zeros = Buffer.alloc(Math.min(end - start, 1 << 20));
    for (let at = start; at < end; at += zeros.length)
      this.write(at, zeros.subarray(0, Math.min(zeros.length, end - at)));
  }
}

/** @throws BallastError READ when the system refuses, or the file ends before `into` is full */
export function readFully(fd: number, path: string, offset: number, into: Buffer): void {
  for (let done = 0; done < into.length;) {
    let count: number;
    try {
      count = readAt(fd, done === 0 ? into : into.subarray(done), offset + done);
    } catch (error) {
      throw readFailed(path, offset + done, error);
    }
    if (count === 0)
      throw new BallastError(ErrorCode.READ, `${path} ended at offset ${offset + done}: someone made it shorter`);
    done += count;
  }
}

/** @throws BallastError READ */
export function nextDataOf(fd: number, path: string, offset: number, bytes: number): Extent | undefined {
  const start = dataStartOf(fd, path, offset, bytes);
  if (start === undefined) return undefined;
  try {
    return { start, end: Math.min(seekHole(fd, start) ?? bytes, bytes) };
  } catch (error) {
    throw readFailed(path, offset, error);
  }
}

/** @throws BallastError READ */
export function dataStartOf(fd: number, path: string, offset: number, bytes: number): number | undefined {
  if (offset >= bytes) return undefined;
  try {
    const start = seekData(fd, offset);
    return start === null || start >= bytes ? undefined : start;
  } catch (error) {
    throw readFailed(path, offset, error);
  }
}

function readFailed(path: string, offset: number, error: unknown): BallastError {
  return new BallastError(ErrorCode.READ, `${path} cannot be read back at offset ${offset} ${systemReason(error)}`, {
    cause: error,
  });
}

export function writeFailed(path: string, offset: number, error: unknown): BallastError {
  const code = systemCode(error);
  if (code === 'EMFILE' || code === 'ENFILE') return outOfDescriptors(code, error);
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    const what =
      code === 'EDQUOT'
        ? 'the quota is used up; make room there, or choose another folder'
        : code === 'EFBIG'
          ? 'the file may not grow so large; allow more with ulimit -f, or choose a filesystem that has larger files'
          : 'the filesystem is full; make room there, or choose another folder';
    return new BallastError(ErrorCode.NO_SPACE, `${path} cannot be written at offset ${offset}: ${what}`, {
      cause: error,
    });
  }
  return new BallastError(ErrorCode.WRITE, `${path} cannot be written at offset ${offset} ${systemReason(error)}`, {
    cause: error,
  });
}
