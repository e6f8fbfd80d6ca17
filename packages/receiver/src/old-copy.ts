import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { BallastError, ErrorCode, systemCode, systemReason } from '@ballast/shared/errors';
import { PAGE_SIZE, type Extent } from '@ballast/shared/memory';
import { dataStartOf, nextDataOf, readFully, type ReadableRegion } from './destination/region-store.js';

/** A file that memory may be taken from instead of the wire: a template, or the copy of this guest's last visit. */
export class OldCopy implements ReadableRegion {
  /** Size in whole pages, in bytes; it need not be that of the region. */
  readonly bytes: number;
  readonly #path: string;
  readonly #fd: number;

  /** @param fd open for reading; `close` closes it */
  constructor(fd: number, path: string, bytes: number) {
    this.#fd = fd;
    this.#path = path;
    this.bytes = bytes;
  }

  /**
   * Opens read-only; the file is never changed.
   * @throws BallastError NOT_FOUND, BAD_FILE, READ
   */
  static open(path: string): OldCopy {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      const code = systemCode(error);
      if (code === 'ENOENT')
        throw new BallastError(
          ErrorCode.NOT_FOUND,
          `${path} does not exist; --reuse expects an older copy of the memory`,
          { cause: error },
        );
      throw new BallastError(ErrorCode.READ, `${path} cannot be opened for reading ${systemReason(error)}`, {
        cause: error,
      });
    }
    const stat = fstatSync(fd);
    if (stat.isFile()) return new OldCopy(fd, path, stat.size - (stat.size % PAGE_SIZE));
    closeSync(fd);
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${path} is not a regular file; --reuse expects an older copy of the memory`,
    );
  }

  /** For another thread, which must not close it. */
  get shared(): { readonly fd: number; readonly path: string; readonly bytes: number } {
    return { fd: this.#fd, path: this.#path, bytes: this.bytes };
  }

  /** The descriptor, for copies that the filesystem makes itself. */
  get fd(): number {
    return this.#fd;
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

  close(): void {
    closeSync(this.#fd);
  }
}

/**
 * All or none.
 * @throws BallastError as `OldCopy.open`
 */
export function openOldCopies(paths: readonly string[]): OldCopy[] {
  const opened: OldCopy[] = [];
  try {
    for (const path of paths) opened.push(OldCopy.open(path));
    return opened;
  } catch (error) {
    for (const copy of opened) copy.close();
    throw error;
  }
}
