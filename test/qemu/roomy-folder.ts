import { access, constants, mkdtemp, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

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

async function hasRoom(folder: string, bytes: number): Promise<boolean> {
  try {
    await access(folder, constants.W_OK);
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize >= bytes;
  } catch {
    return false;
  }
}
