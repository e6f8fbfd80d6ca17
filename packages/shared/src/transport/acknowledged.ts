import type { Socket } from 'node:net';
import { getSocketOption } from '../libc.js';
import { descriptorOf } from './descriptor.js';

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** Where `struct tcp_info` of linux/tcp.h has `tcpi_bytes_acked`, a u64. */
const BYTES_ACKED = 120;

/**
 * Bytes of a socket's TCP stream that the other host's kernel has acknowledged. What this kernel took says little of a link,
 * since its buffers grow while they fill.
 * @returns undefined where Node hides the descriptor, or the connection is over
 */
export function acknowledgedBytes(socket: Socket): number | undefined {
  try {
    const info = getSocketOption(descriptorOf(socket), IPPROTO_TCP, TCP_INFO, BYTES_ACKED + 8);
    return Number(info.readBigUInt64LE(BYTES_ACKED));
  } catch {
    return undefined;
  }
}
