import type { Socket } from 'node:net';
import { BallastError, ErrorCode, systemCode } from '../errors.js';
import { setSocketOption } from '../libc.js';
import { descriptorOf } from './descriptor.js';

const SOL_SOCKET = 1;
const SO_MAX_PACING_RATE = 47;
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;

/** The slowest cap, in bytes a second: 1 Mbit/s. Below it, single segments of a loopback link would look like silence. */
export const MIN_BANDWIDTH = 125_000;
/** Seconds' worth of bytes that the kernel takes ahead of the pace: what waits there delays an `abort`. */
const KERNEL_SECONDS = 0.05;
/** The same for what waits in this process. */
const IN_FLIGHT_SECONDS = 0.25;
/**
 * Segments that the kernel sends before it begins to pace a connection (`tcp_update_skb_after_send`). Over loopback, where
 * a segment has 64 KiB, ten of them are half a second of 10 Mbit/s, so small ones go ahead.
 */
export const UNPACED_SEGMENTS = 10;

/**
 * Holds what leaves by a TCP or TLS socket to `bytesPerSecond`: bytes of the TCP stream, as iperf3 counts them. The
 * kernel spaces the segments out evenly (SO_MAX_PACING_RATE; with or without the fq queueing discipline), so there are
 * no bursts for a switch to drop, as a timer of this process would make.
 * @throws BallastError USAGE where the kernel, or this Node, does not let us
 */
export function paceSocket(socket: Socket, bytesPerSecond: number): void {
  try {
    const fd = descriptorOf(socket);
    // As 64 bits: the older form of 32 ends at 34 Gbit/s.
    const rate = Buffer.alloc(8);
    rate.writeBigUInt64LE(BigInt(Math.round(bytesPerSecond)));
    setSocketOption(fd, SOL_SOCKET, SO_MAX_PACING_RATE, rate);
    const ahead = Buffer.alloc(4);
    ahead.writeUInt32LE(Math.min(Math.max(16384, Math.round(bytesPerSecond * KERNEL_SECONDS)), 2 ** 30));
    setSocketOption(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, ahead);
  } catch (error) {
    throw new BallastError(
      ErrorCode.USAGE,
      `the bandwidth cannot be capped here (${systemCode(error) ?? 'this version of Node.js hides the socket'}); leave out --bandwidth, or shape the link with tc`,
      { cause: error },
    );
  }
}

/** Bytes that may wait in this process for a paced socket, so that what is urgent is not stuck behind them for long. */
export function inFlightLimit(bytesPerSecond: number): number {
  return bytesPerSecond * IN_FLIGHT_SECONDS;
}
