import { readSync, writeSync } from 'node:fs';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { punchHole } from '@ballast/shared/memory';

/** Where the pages of one region end up. All offsets and lengths in bytes, whole pages. */
export interface RegionStore {
  /** Size of the region. */
  readonly bytes: number;
  /** @throws BallastError NO_SPACE, WRITE */
  write(offset: number, from: Buffer): void;
  /**
   * Reads what is stored now.
   * @throws BallastError READ
   */
  read(offset: number, into: Buffer): void;
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
  #fd: number;
  #path: string;
  #mayHoldPages: boolean;

  /** @param mayHoldPages false for a file that was made empty just now, where there is nothing to release */
  constructor(fd: number, path: string, bytes: number, mayHoldPages: boolean) {
    this.#fd = fd;
    this.#path = path;
    this.bytes = bytes;
    this.#mayHoldPages = mayHoldPages;
  }

  write(offset: number, from: Buffer): void {
    try {
      for (let done = 0; done < from.length; ) {
        done += writeSync(this.#fd, from, done, from.length - done, offset + done);
      }
    } catch (error) {
      throw writeFailed(this.#path, offset, error);
    }
  }

  read(offset: number, into: Buffer): void {
    for (let done = 0; done < into.length; ) {
      const count = readOrThrow(this.#fd, this.#path, into, done, offset);
      if (count === 0) throw new BallastError(ErrorCode.READ, `${this.#path} ended at offset ${offset + done}: someone made it shorter`);
      done += count;
    }
  }

  release(start: number, end: number): void {
    if (!this.#mayHoldPages) return;
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
    for (let at = start; at < end; at += zeros.length) this.write(at, zeros.subarray(0, Math.min(zeros.length, end - at)));
  }
}

function readOrThrow(fd: number, path: string, into: Buffer, done: number, offset: number): number {
  try {
    return readSync(fd, into, done, into.length - done, offset + done);
  } catch (error) {
    throw new BallastError(ErrorCode.READ, `${path} cannot be read back at offset ${offset + done} (${systemCode(error) ?? 'unknown error'})`, {
      cause: error,
    });
  }
}

export function writeFailed(path: string, offset: number, error: unknown): BallastError {
  const code = systemCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    const what = code === 'EDQUOT' ? 'the quota is used up' : code === 'EFBIG' ? 'the file may not grow so large' : 'the filesystem is full';
    return new BallastError(ErrorCode.NO_SPACE, `${path} cannot be written at offset ${offset}: ${what}; make room there, or choose another folder`, {
      cause: error,
    });
  }
  return new BallastError(ErrorCode.WRITE, `${path} cannot be written at offset ${offset} (${code ?? 'unknown error'})`, { cause: error });
}
