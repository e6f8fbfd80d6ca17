import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { BallastError, ErrorCode, systemCode, systemReason } from '@ballast/shared/errors';
import { MAX_REGION_BYTES, checkRegionSize } from '@ballast/shared/memory';
import { mappedReads } from './mapped-reads.js';
import { positionalReads } from './positional-reads.js';

/** How page bytes get out of a memory file. Two endpoints stand behind this one contract. */
export interface PageReads {
  /**
   * Fills `into` with the bytes at `offset` of the file, all of them.
   * @throws BallastError SOURCE_CHANGED when the file ends before that, READ when the system refuses
   */
  read(into: Buffer, offset: number): void;
  /**
   * Whether `length` bytes at `offset`, which lie in one leaf, are all zeros, looked at without copying them; only where
   * that is possible.
   * @throws as `read`
   */
  isZero?(offset: number, length: number): boolean;
  close(): void;
}

/**
 * pread: the default. A file that shrinks is a clean error, and a page that was punched meanwhile reads as zeros without
 * being allocated again. mmap: where asked for; a file that shrinks under it kills the process (SIGBUS), and holes must
 * not be touched. docs/decisions.md has the comparison.
 */
export const ReadMethod = { pread: 'pread', mmap: 'mmap' } as const;
export type ReadMethod = (typeof ReadMethod)[keyof typeof ReadMethod];

/** One memory file, open for reading. */
export interface SourceRegion {
  readonly path: string;
  /** Size in bytes, a multiple of the page. */
  readonly bytes: number;
  /** Bytes that the filesystem has allocated for it. */
  readonly allocatedBytes: number;
  readonly fd: number;
  readonly method: ReadMethod;
  readonly reads: PageReads;
  /**
   * Checks that the file has still the size it was opened with: holes at its end are never read, so that no read
   * would tell.
   * @throws BallastError SOURCE_CHANGED
   */
  checkSize(): void;
}

/** A region as a thread hands it to another: all threads of a process share its descriptors. */
export interface SharedRegion {
  readonly fd: number;
  readonly path: string;
  readonly bytes: number;
  readonly method: ReadMethod;
}

/** Reads of a region that another thread has opened, and will close. */
export function readsOf({ fd, path, bytes, method }: SharedRegion): PageReads {
  return method === ReadMethod.mmap ? mappedReads(fd, path, bytes) : positionalReads(fd, path);
}

/** The memory files of one guest, in the order in which they were given. */
export class MemorySource {
  readonly regions: readonly SourceRegion[];

  private constructor(regions: readonly SourceRegion[]) {
    this.regions = regions;
  }

  /**
   * Opens memory files, read-only.
   * @throws BallastError NOT_FOUND, BAD_FILE or READ, with the path named; whatever was opened is closed again
   */
  static open(paths: readonly string[], method: ReadMethod = ReadMethod.pread): MemorySource {
    const regions: SourceRegion[] = [];
    try {
      for (const path of paths) regions.push(openRegion(path, method));
      const source = new MemorySource(regions);
      if (source.bytes > MAX_REGION_BYTES) {
        throw new BallastError(
          ErrorCode.BAD_FILE,
          `the memory files have ${source.bytes} bytes together; a guest's memory may have at most ${MAX_REGION_BYTES} (64 TiB)`,
        );
      }
      return source;
    } catch (error) {
      closeAll(regions);
      throw error;
    }
  }

  /** Size of all regions in bytes. */
  get bytes(): number {
    return this.regions.reduce((sum, region) => sum + region.bytes, 0);
  }

  close(): void {
    closeAll(this.regions);
  }
}

function closeAll(regions: readonly SourceRegion[]): void {
  for (const region of regions) {
    region.reads.close();
    closeSync(region.fd);
  }
}

function openRegion(path: string, method: ReadMethod): SourceRegion {
  const fd = openForReading(path);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      const kind = stat.isDirectory() ? 'a directory' : 'not a regular file';
      throw new BallastError(ErrorCode.BAD_FILE, `${path} is ${kind}; expected a memory file`);
    }
    checkRegionSize(stat.size, path);
    const bytes = stat.size;
    return {
      path,
      bytes,
      allocatedBytes: stat.blocks * 512,
      fd,
      method,
      reads: readsOf({ fd, path, bytes, method }),
      checkSize() {
        const now = fstatSync(fd).size;
        if (now !== bytes) throw sizeChanged(path, bytes, now);
      },
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Non-blocking, so that a FIFO in place of a file is refused instead of waited for. */
function openForReading(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') {
      throw new BallastError(ErrorCode.NOT_FOUND, `${path} does not exist; expected a memory file`, { cause: error });
    }
    throw new BallastError(ErrorCode.READ, `${path} cannot be opened for reading ${systemReason(error)}`, {
      cause: error,
    });
  }
}

export function sizeChanged(path: string, before: number, now: number): BallastError {
  return new BallastError(
    ErrorCode.SOURCE_CHANGED,
    `${path} had ${before} bytes when the transfer began and has ${now} now; the guest must be paused and its file left alone while it is sent`,
  );
}

export function endedEarly(path: string, offset: number): BallastError {
  return new BallastError(
    ErrorCode.SOURCE_CHANGED,
    `${path} ended at offset ${offset} while it was being read; it has become shorter, and must be left alone while it is sent`,
  );
}

export function readFailed(path: string, offset: number, error: unknown): BallastError {
  return new BallastError(ErrorCode.READ, `${path} cannot be read at offset ${offset} ${systemReason(error)}`, {
    cause: error,
  });
}
