import type { Socket } from 'node:net';
import { BallastError, ErrorCode, systemCode } from '../errors.js';
import { duplicate } from '../libc.js';

/**
 * The descriptor of a connected socket; for TLS that of the TCP connection below. Node has no public way to ask for it:
 * libuv's handle, which has it, is a private field.
 * @throws BallastError INTERNAL where this Node keeps it elsewhere
 */
export function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: unknown } | null };
  if (typeof handle?.fd === 'number' && handle.fd >= 0) return handle.fd;
  throw new BallastError(ErrorCode.INTERNAL, 'this version of Node.js hides the descriptor of a socket');
}

/**
 * Another descriptor of the socket, which stays open when the socket is destroyed.
 * @throws BallastError INTERNAL as `descriptorOf`; BUSY when there are no more descriptors, of which a crowd of others may
 *   give some back
 */
export function duplicateDescriptor(socket: Socket): number {
  const fd = descriptorOf(socket);
  try {
    return duplicate(fd);
  } catch (error) {
    throw new BallastError(
      ErrorCode.BUSY,
      `no file descriptor is left for another connection (${systemCode(error) ?? 'unknown error'}); allow more with ulimit -n`,
      { cause: error },
    );
  }
}
