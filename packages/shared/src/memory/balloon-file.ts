import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { BallastError, ErrorCode, systemCode } from '../errors.js';
import { ExtentSet } from './extents.js';
import { PAGE_SIZE } from './page.js';

/** A file with a balloon map, open for reading. */
export interface BalloonFile {
  readonly path: string;
  /** Size in bytes when it was opened. */
  readonly bytes: number;
  /**
   * Fills `into` with the bytes at `offset`, all of them.
   * @throws BallastError BALLOON_MAP when the file ends before that, READ when the system refuses
   */
  read(into: Uint8Array, offset: number): void;
}

/**
 * Opens a file with a balloon map, hands it to `work` and closes it again.
 * @throws BallastError NOT_FOUND, BAD_FILE or READ, with the path named, and whatever `work` throws
 */
export function withBalloonFile<T>(path: string, work: (file: BalloonFile) => T): T {
  const fd = open(path);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      const kind = stat.isDirectory() ? 'a directory' : 'not a regular file';
      throw new BallastError(ErrorCode.BAD_FILE, `${path} is ${kind}; expected a file that holds a balloon map`);
    }
    return work({
      path,
      bytes: stat.size,
      read(into, offset) {
        fill(fd, path, into, offset);
      },
    });
  } finally {
    closeSync(fd);
  }
}

/** Non-blocking, so that a FIFO in place of a file is refused instead of waited for. */
function open(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') {
      throw new BallastError(ErrorCode.NOT_FOUND, `${path} does not exist; expected a file that holds a balloon map`, {
        cause: error,
      });
    }
    throw unreadable(path, error);
  }
}

function fill(fd: number, path: string, into: Uint8Array, offset: number): void {
  for (let done = 0; done < into.length;) {
    const count = readSome(fd, path, into, done, offset + done);
    if (count === 0) {
      throw new BallastError(
        ErrorCode.BALLOON_MAP,
        `${path} ended at offset ${offset + done} while it was being read; a balloon map must be complete before it is used: write it again`,
      );
    }
    done += count;
  }
}

function readSome(fd: number, path: string, into: Uint8Array, at: number, offset: number): number {
  try {
    return readSync(fd, into, at, into.length - at, offset);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): BallastError {
  const code = systemCode(error) ?? 'unknown error';
  return new BallastError(
    ErrorCode.READ,
    `${path} cannot be read (${code}); expected a balloon map: check its permissions`,
    {
      cause: error,
    },
  );
}

/**
 * What of `extents` may be skipped: the pages that lie in it whole. The end of memory counts as the end of a page.
 * @param memoryBytes size of the memory; what lies beyond is dropped
 */
export function wholePages(extents: ExtentSet, memoryBytes: number): ExtentSet {
  const inside = extents.slice(0, memoryBytes);
  const tail = Math.floor(memoryBytes / PAGE_SIZE) * PAGE_SIZE;
  const whole = inside.alignInward(PAGE_SIZE);
  const tailIsWhole = tail < memoryBytes && inside.slice(tail, memoryBytes).bytes === memoryBytes - tail;
  return tailIsWhole ? whole.union(ExtentSet.of([[tail, memoryBytes]])) : whole;
}
