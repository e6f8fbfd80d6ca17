import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { tryLock, unlock } from '@ballast/shared/memory';
import { Outcome, type Destination } from './destination.js';
import { checkRoom, filesystemOf, isSameFile, storeFor, syncFile, syncNameOf, type Filesystem } from './filesystem.js';
import { writeFailed, type RegionStore } from './region-store.js';

/** A file that is written in its existing inode, open and locked. */
export interface InPlaceFile {
  readonly path: string;
  readonly fd: number;
  readonly store: RegionStore;
  readonly filesystem: Filesystem;
  /** Whether an earlier try was interrupted while it wrote the file. */
  readonly interrupted: boolean;
}

/** Beside a file that is being written in place: as long as it is there, the file is neither the old memory nor the new. */
export function incompleteMarkerPath(path: string): string {
  return `${path}.incomplete`;
}

/**
 * Writes into files that exist, as a waiting QEMU has them mapped. There is no "whole or not there" here: from the
 * first byte until the end the file is unusable, and FILE.incomplete beside it says so.
 */
export class InPlaceFiles implements Destination {
  readonly readsBack = true;
  readonly #files: readonly InPlaceFile[];

  private constructor(files: readonly InPlaceFile[]) {
    this.#files = files;
  }

  /** @throws BallastError NOT_FOUND, BAD_FILE, MISMATCH, BUSY, NO_SPACE, WRITE; then the files are as they were */
  static open(paths: readonly string[], regionBytes: readonly number[], neededBytes: number | undefined): InPlaceFiles {
    const files: InPlaceFile[] = [];
    try {
      for (const [index, path] of paths.entries()) files.push(openExisting(path, regionBytes[index] ?? 0));
      if (neededBytes !== undefined) checkRoom(files, neededBytes);
      markAll(files);
      return new InPlaceFiles(files);
    } catch (error) {
      files.forEach(closeFile);
      throw error;
    }
  }

  /** What was in the files before an in-place transfer is of no use to it; what an interrupted one left is. */
  get holds(): boolean {
    return this.#files.some((file) => file.interrupted);
  }

  get stores(): readonly RegionStore[] {
    return this.#files.map((file) => file.store);
  }

  async sync(): Promise<void> {
    await Promise.all(
      this.#files.filter((file) => !file.filesystem.volatile).map((file) => syncFile(file.fd, file.path)),
    );
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the contract leaves room for destinations that wait
  async publish(): Promise<void> {
    for (const file of this.#files) checkStillThere(file);
    for (const { path, filesystem } of this.#files) {
      removeMarker(path);
      if (!filesystem.volatile) syncNameOf(path);
    }
  }

  /** The markers stay unless the files were published. */
  close(outcome: Outcome): string | undefined {
    this.#files.forEach(closeFile);
    const [first] = this.#files;
    if (outcome === Outcome.published || first === undefined) return undefined;
    return `${first.path} is incomplete and must not be used: the same command goes on from there`;
  }
}

/**
 * Checks what an in-place transfer needs before anyone connects.
 * @throws BallastError NOT_FOUND, BAD_FILE
 */
export function checkInPlaceFiles(paths: readonly string[]): void {
  for (const path of paths) closeSync(openRegular(path));
}

function openRegular(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') {
      throw new BallastError(
        ErrorCode.NOT_FOUND,
        `${path} does not exist; --in-place writes into a file that does, such as a waiting QEMU's`,
        { cause: error },
      );
    }
    if (code === 'EISDIR')
      throw new BallastError(ErrorCode.BAD_FILE, `${path} is a directory; expected a memory file`, { cause: error });
    throw writeFailed(path, 0, error);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new BallastError(ErrorCode.BAD_FILE, `${path} is not a regular file; expected a memory file`);
}

/** @throws BallastError NOT_FOUND, BAD_FILE, MISMATCH, BUSY, WRITE */
export function openExisting(path: string, bytes: number): InPlaceFile {
  const fd = openRegular(path);
  try {
    if (!tryLock(fd)) throw new BallastError(ErrorCode.BUSY, `another receiver is writing ${path}; wait for it`);
    const { size } = fstatSync(fd);
    if (size !== bytes) {
      throw new BallastError(
        ErrorCode.MISMATCH,
        `${path} has ${size} bytes and the sender's memory ${bytes}; start both guests with the same memory size`,
      );
    }
    const filesystem = filesystemOf(path);
    return {
      path,
      fd,
      store: storeFor(fd, path, bytes, filesystem, true),
      filesystem,
      interrupted: existsSync(incompleteMarkerPath(path)),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Marks all files, or none that was not marked before. */
function markAll(files: readonly InPlaceFile[]): void {
  const marked: InPlaceFile[] = [];
  try {
    for (const file of files) {
      writeMarker(file);
      marked.push(file);
    }
  } catch (error) {
    for (const file of marked) unmark(file);
    throw error;
  }
}

/** Durable before the first byte of the memory is written: a disk keeps no order between the two by itself. */
function writeMarker(file: InPlaceFile): void {
  const marker = incompleteMarkerPath(file.path);
  try {
    const fd = openSync(
      marker,
      constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      writeNote(fd, file.path);
      if (!file.filesystem.volatile) {
        fsyncSync(fd);
        syncNameOf(marker, fd);
      }
    } catch (error) {
      unmark(file);
      throw error;
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw error instanceof BallastError ? error : writeFailed(marker, 0, error);
  }
}

/** Of a file that was not written yet. What an earlier try has left in it is still there, and so is its mark. */
function unmark({ path, interrupted }: InPlaceFile): void {
  if (!interrupted) removeMarker(path);
}

/** It need not be there: who has taken it away has done the same. */
function removeMarker(path: string): void {
  const marker = incompleteMarkerPath(path);
  try {
    rmSync(marker, { force: true });
  } catch (error) {
    throw writeFailed(marker, 0, error);
  }
}

function writeNote(fd: number, path: string): void {
  try {
    writeFileSync(
      fd,
      `ballast-receive is writing ${path} in place, or was interrupted while it did.\nAs long as this note is here, the memory in that file is incomplete: run the transfer again.\n`,
    );
  } catch (error) {
    // hugetlbfs knows no write(2), and a full filesystem may have all the room that the memory needs: there the note's
    // name has to say it.
    if (!['EINVAL', 'ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '')) throw error;
  }
}

function checkStillThere({ path, fd }: InPlaceFile): void {
  if (isSameFile(statSync(path, { throwIfNoEntry: false }), fd)) return;
  throw new BallastError(
    ErrorCode.WRITE,
    `${path} was removed or replaced by someone while the memory was received into it; leave it alone and run the transfer again`,
  );
}

export function closeFile({ fd, store }: InPlaceFile): void {
  store.close();
  unlock(fd);
  closeSync(fd);
}
