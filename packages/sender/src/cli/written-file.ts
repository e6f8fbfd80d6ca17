import { statSync, type BigIntStats } from 'node:fs';
import { BallastError, ErrorCode } from '@ballast/shared/errors';

/**
 * Refuses, before any work is done, a file to write that is one of the memory files, by whichever name: it would be
 * replaced by what was found out about it.
 * @param option that names the file to write
 * @throws BallastError USAGE
 */
export function checkWrittenFile(option: string, path: string, files: readonly string[]): void {
  const written = look(path);
  if (written === undefined) return;
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

/** undefined for what is not there, or cannot be looked at: whoever opens it says so. */
function look(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
