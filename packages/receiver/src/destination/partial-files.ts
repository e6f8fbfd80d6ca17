import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  renameSync,
  unlinkSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { renameNoReplace, tryLock, unlock } from '@ballast/shared/memory';
import { Outcome, type Destination } from './destination.js';
import {
  allocatedBytes,
  checkRoom,
  filesystemOf,
  storeFor,
  syncFile,
  syncFolderOf,
  type Filesystem,
} from './filesystem.js';
import { writeFailed, type RegionStore } from './region-store.js';

/** The name under which FILE is built. */
export function partialPath(path: string): string {
  return `${path}.partial`;
}

export interface PartialFilesOptions {
  readonly paths: readonly string[];
  /** Size of each, in bytes. */
  readonly regionBytes: readonly number[];
  /** Whether a file that has the final name may be replaced. */
  readonly force: boolean;
  /** At most so many bytes will be written in all; undefined for no check. */
  readonly neededBytes: number | undefined;
}

interface PartialFile {
  readonly path: string;
  readonly partial: string;
  readonly fd: number;
  readonly store: RegionStore;
  readonly filesystem: Filesystem;
  /** Whether it was there before, with something in it. */
  readonly holds: boolean;
}

/**
 * The usual destination: each FILE is built as FILE.partial and gets its name at the end, at once and without
 * replacing anything. Until then nothing that others look for is there.
 */
export class PartialFiles implements Destination {
  readonly readsBack = true;
  readonly #files: readonly PartialFile[];
  readonly #force: boolean;

  private constructor(files: readonly PartialFile[], force: boolean) {
    this.#files = files;
    this.#force = force;
  }

  /**
   * Creates and locks the partial files, at full size: empty, or with what an earlier try left in them.
   * @throws BallastError EXISTS, BUSY, BAD_FILE, NO_SPACE, WRITE; what was created here is removed again
   */
  static open({ paths, regionBytes, force, neededBytes }: PartialFilesOptions): PartialFiles {
    checkFinalNames(paths, force);
    const files: PartialFile[] = [];
    try {
      for (const [index, path] of paths.entries()) files.push(openPartial(path, regionBytes[index] ?? 0));
      const [first] = files;
      if (first !== undefined && neededBytes !== undefined) {
        const held = files.reduce((sum, file) => sum + allocatedBytes(file.fd), 0);
        checkRoom(dirname(first.path), first.filesystem, neededBytes - held);
      }
      return new PartialFiles(files, force);
    } catch (error) {
      for (const file of files) {
        if (file.holds) closeFile(file);
        else removePartial(file);
      }
      throw error;
    }
  }

  get holds(): boolean {
    return this.#files.some((file) => file.holds);
  }

  get stores(): readonly RegionStore[] {
    return this.#files.map((file) => file.store);
  }

  async sync(): Promise<void> {
    await Promise.all(
      this.#files.filter((file) => !file.filesystem.volatile).map((file) => syncFile(file.fd, file.partial)),
    );
  }

  /** All names or none: when one cannot be given, those given before it are taken back. */
  // eslint-disable-next-line @typescript-eslint/require-await -- the contract leaves room for destinations that wait
  async publish(): Promise<void> {
    const published: PartialFile[] = [];
    try {
      for (const file of this.#files) {
        nameFile(file.partial, file.path, this.#force);
        published.push(file);
      }
    } catch (error) {
      for (const file of published.reverse()) renameSync(file.path, file.partial);
      throw error;
    }
    for (const file of this.#files) if (!file.filesystem.volatile) syncFolderOf(file.path);
  }

  close(outcome: Outcome): string | undefined {
    let left: string | undefined;
    for (const file of this.#files) {
      if (outcome === Outcome.published) {
        closeFile(file);
      } else if (outcome === Outcome.interrupted && allocatedBytes(file.fd) > 0) {
        left ??= `${file.partial} is kept: the same command goes on from there`;
        closeFile(file);
      } else {
        removePartial(file);
      }
    }
    return left;
  }
}

/**
 * Checks early what publishing would find out late.
 * @throws BallastError EXISTS, BAD_FILE, NOT_FOUND
 */
export function checkFinalNames(paths: readonly string[], force: boolean): void {
  for (const path of paths) {
    if (basename(path) === '' || path.endsWith('/')) {
      throw new BallastError(ErrorCode.BAD_FILE, `'${path}' is no name for a file`);
    }
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory() === true) {
      throw new BallastError(ErrorCode.BAD_FILE, `${path} is a directory; expected the name of the file to make`);
    }
    if (stat !== undefined && !force) {
      throw new BallastError(
        ErrorCode.EXISTS,
        `${path} exists already; remove it, choose another name, or replace it with --force`,
      );
    }
    if (lstatSync(dirname(path), { throwIfNoEntry: false }) === undefined) {
      throw new BallastError(
        ErrorCode.NOT_FOUND,
        `the folder ${dirname(path)} does not exist; create it, or choose another`,
      );
    }
  }
}

/** Never through a symbolic link, only for this user, and only ours to write. */
function openPartial(path: string, bytes: number): PartialFile {
  const partial = partialPath(path);
  const fd = createLocked(partial);
  try {
    fchmodSync(fd, 0o600);
    const filesystem = filesystemOf(dirname(path));
    const holds = allocatedBytes(fd) > 0;
    const store = storeFor(fd, partial, bytes, filesystem, holds);
    try {
      ftruncateSync(fd, bytes);
    } catch (error) {
      throw writeFailed(partial, bytes, error);
    }
    return { path, partial, fd, store, filesystem, holds };
  } catch (error) {
    if (allocatedBytes(fd) === 0) unlinkSync(partial);
    closeSync(fd);
    throw error;
  }
}

function createLocked(partial: string): number {
  for (;;) {
    const fd = openNew(partial);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile() || stat.nlink > 1 || stat.uid !== process.geteuid?.()) {
        throw new BallastError(ErrorCode.BAD_FILE, `${partial} is not a regular file of this user alone; remove it`);
      }
      if (!tryLock(fd)) {
        throw new BallastError(
          ErrorCode.BUSY,
          `another receiver is writing ${partial}; wait for it, or choose another name`,
        );
      }
      if (lstatSync(partial, { throwIfNoEntry: false })?.ino === stat.ino) return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    // Its owner gave the file its final name, or removed it, between our open and our lock.
    closeSync(fd);
  }
}

function openNew(partial: string): number {
  try {
    return openSync(partial, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  } catch (error) {
    if (systemCode(error) === 'ELOOP') {
      throw new BallastError(
        ErrorCode.BAD_FILE,
        `${partial} is a symbolic link; remove it: the file is never written through one`,
        { cause: error },
      );
    }
    throw writeFailed(partial, 0, error);
  }
}

function nameFile(partial: string, path: string, force: boolean): void {
  try {
    if (force) renameSync(partial, path);
    else renameNoReplace(partial, path);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') {
      throw new BallastError(ErrorCode.EXISTS, `${path} appeared while the memory was received; it was left as it is`, {
        cause: error,
      });
    }
    throw writeFailed(path, 0, error);
  }
}

/** Unlinks before it closes: while the lock is held nobody else can have the name. */
function removePartial(file: PartialFile): void {
  unlinkSync(file.partial);
  closeFile(file);
}

function closeFile({ fd, store }: PartialFile): void {
  store.close();
  unlock(fd);
  closeSync(fd);
}
