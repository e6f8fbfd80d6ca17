import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** A folder of its own for one test, removed when the test ends. */
export function scratchFolder(t: ExecutionContext, parent = tmpdir()): string {
  const folder = mkdtempSync(join(parent, 'ballast-test-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** A file of its own for one test. */
export function scratchFile(t: ExecutionContext, content: string | Uint8Array): string {
  const path = join(scratchFolder(t), 'file');
  writeFileSync(path, content);
  return path;
}

/** Whether files can be made in /dev/shm, which is tmpfs on Linux. */
export function hasTmpfs(): boolean {
  try {
    accessSync('/dev/shm', constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
