import { access, constants, mkdtemp, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The type that Linux gives tmpfs in statfs(2). */
const TMPFS_MAGIC = 0x01021994;

/**
 * A new folder for memory files of together `bytes`: in /dev/shm, where such files live on real hosts, or else in the
 * system's temporary folder, as /dev/shm holds no more than 64 MiB in many containers. The caller removes it.
 */
export async function roomyFolder(bytes: number): Promise<string> {
  for (const parent of ['/dev/shm', tmpdir()]) {
    if (await hasRoom(parent, bytes)) return mkdtemp(join(parent, 'ballast-qemu-'));
  }
  throw new Error(`neither /dev/shm nor ${tmpdir()} has ${Math.ceil(bytes / 2 ** 20)} MiB of room for memory files`);
}

/**
 * Whether each page that is punched out of a file here, and only that, is free afterwards. Filesystems on disks keep
 * page caches in pieces of many pages: there the next write to a neighbour can allocate a punched page again.
 */
export async function punchesStay(folder: string): Promise<boolean> {
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
