import { closeSync, constants, openSync, statSync, writeFileSync, type BigIntStats } from 'node:fs';
import { dirname } from 'node:path';
import { BallastError, ErrorCode } from '@ballast/shared/errors';

/**
 * Refuses, before any work is done, a file to write that cannot be one, or that is one of the memory files, by whichever
 * name: it would be replaced by what was found out about it.
 * @param option that names the file to write
 * @throws BallastError USAGE; NOT_FOUND where its folder is missing, BAD_FILE where it is a folder itself
 */
export function checkWrittenFile(option: string, path: string, files: readonly string[]): void {
  const written = look(path);
  if (written === undefined) {
    const folder = dirname(path);
    if (look(folder) !== undefined) return;
    throw new BallastError(
      ErrorCode.NOT_FOUND,
      `the folder ${folder} of ${option} ${path} cannot be found; create it, or choose another`,
    );
  }
  if (written.isDirectory())
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${option} ${path} is a directory; expected the name of a file to write`,
    );
  for (const file of files) {
    const memory = look(file);
    if (memory?.ino === written.ino && memory.dev === written.dev) {
      throw new BallastError(
        ErrorCode.USAGE,
        `${option} ${path} is the memory file itself, which is never changed; give ${option} another name`,
      );
    }
  }
}

/**
 * Writes a file that the user named, which may be a pipe. A FIFO that nobody reads is refused by the system (ENXIO): no
 * signal ends a process that waits in open(2).
 * @throws what the system says
 */
export function writeNamedFile(path: string, contents: string | Uint8Array): void {
  // Open until the other is: a reader must not see the end in between.
  const probe = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NONBLOCK, 0o666);
  try {
    writeFileSync(path, contents);
  } finally {
    closeSync(probe);
  }
}

/** undefined for what is not there, or cannot be looked at: whoever opens it says so. */
function look(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
