import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  statSync,
  unlinkSync,
  type Stats,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { exchangeNames, renameNoReplace, tryLock, unlock } from '@ballast/shared/memory';
import { Outcome, type Destination } from './destination.js';
import {
  allocatedBytes,
  checkRoom,
  filesystemOf,
  isSameFile,
  storeFor,
  syncFile,
  syncNameOf,
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
      if (neededBytes !== undefined) checkRoom(files, neededBytes);
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
    for (const file of this.#files) checkStillThere(file);
    const named: NamedFile[] = [];
    try {
      for (const { partial, path } of this.#files) named.push(nameFile(partial, path, this.#force));
      for (const { path, fd, filesystem } of this.#files) if (!filesystem.volatile) syncNameOf(path, fd);
    } catch (error) {
      for (const file of named.reverse()) takeBack(file);
      throw error;
    }
    for (const { partial, replaced } of named) if (replaced) removeIfPossible(partial);
  }

  close(outcome: Outcome): string | undefined {
    let left: string | undefined;
    for (const file of this.#files) {
      if (outcome === Outcome.published || !isStillThere(file)) {
        closeFile(file);
      } else if (outcome === Outcome.interrupted && allocatedBytes(file.fd) > 0) {
        left ??= `${file.partial} is kept: the same command goes on from there`;
        closeFile(file);
      } else if (!removePartial(file)) {
        left ??= `${file.partial} is left behind, because it cannot be removed`;
      }
    }
    return left;
  }
}

/**
 * Checks early what publishing would find out late.
 * @throws BallastError EXISTS, BAD_FILE, NOT_FOUND, WRITE
 */
export function checkFinalNames(paths: readonly string[], force: boolean): void {
  for (const path of paths) {
    if (basename(path) === '' || path.endsWith('/')) {
      throw new BallastError(ErrorCode.BAD_FILE, `'${path}' is no name for a file`);
    }
    const stat = lookAt(path, lstatSync);
    if (stat?.isDirectory() === true) {
      throw new BallastError(ErrorCode.BAD_FILE, `${path} is a directory; expected the name of the file to make`);
    }
    if (stat !== undefined && !force) {
      throw new BallastError(
        ErrorCode.EXISTS,
        `${path} exists already; remove it, choose another name, or replace it with --force`,
      );
    }
    const folder = lookAt(dirname(path), statSync);
    if (folder === undefined) {
      throw new BallastError(
        ErrorCode.NOT_FOUND,
        `the folder ${dirname(path)} does not exist; create it, or choose another`,
      );
    }
    if (!folder.isDirectory()) {
      throw new BallastError(ErrorCode.BAD_FILE, `${dirname(path)} is not a folder, and so no file can be made in it`);
    }
    // May be too long where the final name is not.
    lookAt(partialPath(path), lstatSync);
  }
}

/**
 * @returns undefined when nothing has the name
 * @throws BallastError BAD_FILE for a name that no file can have; WRITE when the system does not let us look
 */
function lookAt(path: string, stat: typeof statSync): Stats | undefined {
  try {
    return stat(path, { throwIfNoEntry: false });
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOTDIR') return undefined;
    if (code === 'ENAMETOOLONG') {
      throw new BallastError(ErrorCode.BAD_FILE, `${path} is too long for a name; choose a shorter one`, {
        cause: error,
      });
    }
    throw writeFailed(path, 0, error);
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
    if (allocatedBytes(fd) === 0) removeIfPossible(partial);
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

/** A file that has its final name. */
interface NamedFile {
  readonly partial: string;
  readonly path: string;
  /** Whether the partial name leads to what had the final one before. */
  readonly replaced: boolean;
}

function nameFile(partial: string, path: string, force: boolean): NamedFile {
  try {
    if (force) return { partial, path, replaced: replaceFile(partial, path) };
    renameToNew(partial, path);
    return { partial, path, replaced: false };
  } catch (error) {
    if (systemCode(error) === 'EEXIST') {
      throw new BallastError(ErrorCode.EXISTS, `${path} appeared while the memory was received; it was left as it is`, {
        cause: error,
      });
    }
    throw writeFailed(path, 0, error);
  }
}

/** What cannot rename without replacing, as NFS, can give a second name without replacing. */
function renameToNew(partial: string, path: string): void {
  try {
    renameNoReplace(partial, path);
  } catch (error) {
    if (!isUnsupported(error)) throw error;
    linkSync(partial, path);
    unlinkSync(partial);
  }
}

/**
 * The file that had the name stays under the partial one until all files have theirs.
 * @returns whether it did, and is there
 */
function replaceFile(partial: string, path: string): boolean {
  // Names of all kinds can change places, and a folder is not ours to replace.
  const isFolder = lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  try {
    if (!isFolder) {
      exchangeNames(partial, path);
      return true;
    }
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && !isUnsupported(error)) throw error;
  }
  renameSync(partial, path);
  return false;
}

function takeBack({ partial, path, replaced }: NamedFile): void {
  try {
    if (replaced) exchangeNames(partial, path);
    else renameSync(path, partial);
  } catch {
    // It keeps the name, and is whole; why others could not have theirs is what is thrown.
  }
}

function isUnsupported(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'EINVAL' || code === 'ENOSYS' || code === 'EOPNOTSUPP';
}

/** What has the partial name now would get the final one, whatever it is. */
function checkStillThere(file: PartialFile): void {
  if (isStillThere(file)) return;
  throw new BallastError(
    ErrorCode.WRITE,
    `${file.partial} was removed or replaced by someone while the memory was received; leave it alone and run the transfer again`,
  );
}

function isStillThere({ partial, fd }: PartialFile): boolean {
  try {
    return isSameFile(lstatSync(partial, { throwIfNoEntry: false }), fd);
  } catch {
    return false;
  }
}

/**
 * Unlinks before it closes: while the lock is held nobody else can have the name.
 * @returns whether it is gone
 */
function removePartial(file: PartialFile): boolean {
  const isGone = !isStillThere(file) || removeIfPossible(file.partial);
  closeFile(file);
  return isGone;
}

function removeIfPossible(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}

function closeFile({ fd, store }: PartialFile): void {
  store.close();
  unlock(fd);
  closeSync(fd);
}
