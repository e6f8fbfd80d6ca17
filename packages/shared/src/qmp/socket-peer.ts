import type { Socket } from 'node:net';
import { getSocketOption } from '../libc.js';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

/** The process at the other end of a unix socket, as it was when it began to listen, or connected. */
export interface SocketPeer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Who is at the other end of a connected unix socket (SO_PEERCRED, a struct ucred); undefined where that cannot be
 * known: Node keeps the descriptor of a socket in a private field.
 */
export function socketPeer(socket: Socket): SocketPeer | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: unknown } | null })._handle?.fd;
  if (typeof fd !== 'number' || fd < 0) return undefined;
  try {
    const credentials = getSocketOption(fd, SOL_SOCKET, SO_PEERCRED, 12);
    return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4), gid: credentials.readUInt32LE(8) };
  } catch {
    return undefined;
  }
}
