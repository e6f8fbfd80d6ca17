import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setSocketOption } from '../libc.js';
import { descriptorOf } from './descriptor.js';

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
/**
 * Bytes that the kernel may hold for all connections of a session together: what was received and not read, which is
 * lost when the receiver is killed, and what was taken from the sender and not sent. Linux lets a buffer grow by itself
 * up to `tcp_rmem` and `tcp_wmem`, for each connection: 32 MiB on hosts that are tuned for long links.
 */
const RECEIVE_BYTES = 32 << 20;
const SEND_BYTES = 16 << 20;
/** A buffer of a fixed size that is smaller than this costs more speed on a long link than a kill costs. */
const SMALLEST_BYTES = 1 << 20;

/**
 * Holds a socket's kernel buffers to its share, where they could grow beyond it. A buffer that was set grows no more by
 * itself, so where the kernel allows only small ones (`rmem_max`, `wmem_max`) its own limits are left alone: there they
 * are small, too.
 * @param connections how many share the bound
 */
export function boundKernelBuffers(socket: Socket, connections: number): void {
  bound(socket, SO_RCVBUF, RECEIVE_BYTES / connections, 'rmem');
  bound(socket, SO_SNDBUF, SEND_BYTES / connections, 'wmem');
}

function bound(socket: Socket, option: number, bytes: number, kind: 'rmem' | 'wmem'): void {
  // The third number: how far the kernel lets it grow. What may be set is counted before the kernel doubles it.
  const growsTo = sysctl(`ipv4/tcp_${kind}`, 2);
  const settable = Math.min(bytes / 2, sysctl(`core/${kind}_max`, 0) ?? 0);
  if (growsTo === undefined || growsTo <= bytes || 2 * settable < SMALLEST_BYTES) return;
  const value = Buffer.alloc(4);
  value.writeUInt32LE(Math.floor(settable));
  try {
    setSocketOption(descriptorOf(socket), SOL_SOCKET, option, value);
  } catch {
    // Node hides the descriptor, or the connection is over: no transfer fails for a bound that was not set.
  }
}

/** One of the numbers of a setting of the kernel's; undefined where it cannot be read. */
function sysctl(name: string, index: number): number | undefined {
  try {
    const number = Number(readFileSync(`/proc/sys/net/${name}`, 'utf8').trim().split(/\s+/)[index]);
    return Number.isSafeInteger(number) ? number : undefined;
  } catch {
    return undefined;
  }
}
