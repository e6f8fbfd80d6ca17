import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** This machine lacks something that a real guest needs: a reason to skip a test, not a defect. */
export class MissingRequirement extends Error {
  override readonly name = 'MissingRequirement';
}

/** The programs of a real guest, and the Debian package of each. */
const PROGRAMS = [
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['busybox', 'busybox-static'],
  ['cpio', 'cpio'],
  ['dpkg', 'dpkg'],
  ['apt-get', 'apt'],
  ['apt-cache', 'apt'],
  ['setpriv', 'util-linux'],
  ['cmp', 'diffutils'],
] as const;

/** Where a program of this name is on the PATH, or undefined. */
export async function findProgram(name: string): Promise<string | undefined> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

export async function requirePrograms(): Promise<void> {
  for (const [program, debianPackage] of PROGRAMS) {
    if ((await findProgram(program)) === undefined) {
      throw new MissingRequirement(`${program} is not installed (Debian package ${debianPackage})`);
    }
  }
}
