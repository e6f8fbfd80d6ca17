import { randomBytes } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/** Bytes of device state that are taken at most; a guest with the usual devices has well below one MiB beside its firmware and video memory. */
export const MAX_STATE_BYTES = 256 << 20;

/** Bytes of a unix socket's path in sockaddr_un, without the final zero. */
const MAX_SOCKET_PATH = 107;

/**
 * A path for a unix socket between QEMU and us: beside the monitor, where QEMU surely can go, or else in the system's
 * temporary folder.
 */
export function privateSocketPath(monitor: string): string {
  const name = `ballast-${randomBytes(6).toString('hex')}.sock`;
  // QEMU may have another working directory.
  const folder = resolve(dirname(monitor));
  const beside = join(folder, name);
  if (Buffer.byteLength(beside) <= MAX_SOCKET_PATH && isWritable(folder)) return beside;
  return join(tmpdir(), name);
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
