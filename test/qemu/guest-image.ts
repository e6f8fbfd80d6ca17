import { execFile } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { INIT_SCRIPT, MODULES, RANDOM_MIB } from './guest-init.js';
import { MissingRequirement, findProgram, requirePrograms } from './requirements.js';

/** What QEMU boots: the kernel of Debian's cloud images, and our /init in an initramfs. */
export interface GuestImage {
  readonly kernel: string;
  readonly initramfs: string;
}

/** Depends on whichever kernel Debian has at the moment. */
const KERNEL_METAPACKAGE = 'linux-image-cloud-amd64';
const KERNEL_NAME = 'vmlinuz';
const INITRAMFS_NAME = 'initramfs';

const run = promisify(execFile);

/**
 * The guest image of this user's cache, made first where it is not there yet. It is made in a folder of its own and
 * gets its name when it is complete, so that any number of test runs may do this at the same time.
 */
export async function guestImage(): Promise<GuestImage> {
  await requirePrograms();
  const busybox = await readFile(await staticBusybox());
  const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'ballast-test');
  const folder = join(cache, `guest-${recipeDigest(busybox)}`);
  const image = { kernel: join(folder, KERNEL_NAME), initramfs: join(folder, INITRAMFS_NAME) };
  if (await exists(image.initramfs)) return image;

  await mkdir(cache, { recursive: true });
  const building = await mkdtemp(join(cache, 'building-'));
  try {
    const finished = join(building, 'finished');
    await build(building, finished, busybox);
    await rename(finished, folder).catch(async (error: unknown) => {
      // Another run was faster: its folder stands under our name, and is as good as ours.
      if (!(await exists(image.initramfs))) throw error;
    });
  } finally {
    await rm(building, { recursive: true, force: true });
  }
  return image;
}

/** Everything of the image but the kernel's version: a cached image is used although Debian has a newer kernel. */
function recipeDigest(busybox: Buffer): string {
  const hash = createHash('sha256')
    .update(KERNEL_METAPACKAGE)
    .update(INIT_SCRIPT)
    .update(String(RANDOM_MIB))
    .update(busybox);
  return hash.digest('hex').slice(0, 16);
}

async function build(scratch: string, finished: string, busybox: Buffer): Promise<void> {
  const unpacked = join(scratch, 'kernel');
  await unpackKernel(scratch, unpacked);
  const root = join(scratch, 'root');
  for (const folder of ['bin', 'modules']) await mkdir(join(root, folder), { recursive: true });
  await mkdir(finished);

  await copyFile(join(unpacked, 'boot', await theOne(join(unpacked, 'boot'), 'vmlinuz-')), join(finished, KERNEL_NAME));
  const versions = join(unpacked, 'lib/modules');
  const drivers = join(versions, await theOne(versions, ''), 'kernel/drivers/virtio');
  for (const name of MODULES) await copyFile(join(drivers, `${name}.ko`), join(root, 'modules', `${name}.ko`));

  await writeFile(join(root, 'bin/busybox'), busybox, { mode: 0o755 });
  await writeFile(join(root, 'random'), randomLooking(RANDOM_MIB * 2 ** 20));
  await writeFile(join(root, 'init'), INIT_SCRIPT);
  await chmod(join(root, 'init'), 0o755);

  const names = ['bin', 'bin/busybox', 'modules', ...MODULES.map((name) => `modules/${name}.ko`), 'random', 'init'];
  const archive = join(finished, INITRAMFS_NAME);
  const cpio = run('cpio', ['--create', '--format=newc', '--owner=0:0', '--quiet', `--file=${archive}`], { cwd: root });
  cpio.child.stdin?.end(names.join('\n'));
  await cpio;
}

/** Downloads the kernel's package with the system's own package manager and unpacks it; nothing is installed. */
async function unpackKernel(scratch: string, target: string): Promise<void> {
  try {
    const { stdout } = await run('apt-cache', ['depends', '--important', KERNEL_METAPACKAGE]);
    const name = /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
    if (name === undefined) throw new Error(`apt knows no package ${KERNEL_METAPACKAGE}`);
    await run('apt-get', ['download', '--quiet', name], { cwd: scratch });
  } catch (error) {
    const reason = error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error);
    throw new MissingRequirement(`the kernel of ${KERNEL_METAPACKAGE} cannot be downloaded: ${reason}`, {
      cause: error,
    });
  }
  await run('dpkg', ['-x', join(scratch, await theOne(scratch, 'linux-image-')), target]);
}

/** The initramfs has no libraries, so the busybox in it must need none. */
async function staticBusybox(): Promise<string> {
  const path = await findProgram('busybox');
  if (path === undefined) throw new MissingRequirement('busybox is not installed (Debian package busybox-static)');
  const { stdout } = await run('ldd', [path]).catch(() => ({ stdout: '' }));
  if (stdout.includes('=>')) {
    throw new MissingRequirement(`${path} is dynamically linked, install the Debian package busybox-static`);
  }
  return path;
}

async function theOne(folder: string, prefix: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(prefix));
  const [name] = names;
  if (name === undefined || names.length > 1) {
    throw new Error(`expected one ${prefix}… in ${folder}, found ${names.join(', ') || 'none'}`);
  }
  return name;
}

/** Bytes without any pattern, the same in every image. */
function randomLooking(bytes: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
