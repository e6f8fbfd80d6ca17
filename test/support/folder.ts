import { access, constants, mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** The type that Linux gives tmpfs in statfs(2). */
const TMPFS_MAGIC = 0x01021994;
/** Room that a test wants when it does not say. */
const USUAL_ROOM = 96 << 20;

/**
 * A new folder of a test's own, removed at its end: on tmpfs where there is room, since memory files live there on real
 * hosts, or else in the system's temporary folder.
 * @param bytes room that the test needs
 */
export async function temporaryFolder(t: ExecutionContext, bytes: number = USUAL_ROOM): Promise<string> {
  for (const parent of ['/dev/shm', tmpdir()]) {
    if (!(await hasRoom(parent, bytes))) continue;
    const folder = await mkdtemp(join(parent, 'ballast-test-'));
    t.teardown(async () => {
      await rm(folder, { recursive: true, force: true });
    });
    return folder;
  }
  throw new Error(`neither /dev/shm nor ${tmpdir()} has ${Math.ceil(bytes / 2 ** 20)} MiB of room for this test`);
}

/** Whether each page that is not written, or punched, costs nothing there: disks allocate in larger pieces. */
export async function countsEveryPage(folder: string): Promise<boolean> {
  return (await statfs(folder)).type === TMPFS_MAGIC;
}

async function hasRoom(folder: string, bytes: number): Promise<boolean> {
  try {
    await access(folder, constants.W_OK);
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize >= bytes;
  } catch {
    return false;
  }
}
