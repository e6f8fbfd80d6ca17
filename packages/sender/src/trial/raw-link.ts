import { FrameType, MAX_BATCH_BYTES } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';

/** What the link itself carries between the two processes: nothing is read, hashed or stored on the way. */
export interface RawLink {
  /** Bytes of filler that were carried. */
  readonly bytes: number;
  /** How long they took, on the receiver's clock. */
  readonly seconds: number;
  readonly bytesPerSecond: number;
  /** From a question to its answer, both processes included; the least of several. */
  readonly roundTripSeconds: number;
  /** CPU that this side spends to send a byte. */
  readonly cpuSecondsPerByte: number;
}

/** Milliseconds of filler: long enough for a window that grows, and for a shaper's burst to be a small part. */
const PROBE_MS = 1500;
/** Bytes of filler at most, lest a fast link and a long time exceed what a probe may carry. */
const MOST_BYTES = 2 ** 34;

/**
 * Sends filler over a connection that was just made and said nothing yet, and asks what arrived. Closes it.
 * @param milliseconds of filler; at least one frame of it
 * @throws BallastError BUSY while the receiver has something else to do, or the connection's failure
 */
export async function probeLink(connection: Connection, milliseconds = PROBE_MS): Promise<RawLink> {
  const asked = performance.now();
  await connection.sendControl({ kind: 'probe' });
  await connection.expect('probe-ready');
  const roundTripSeconds = (performance.now() - asked) / 1000;

  const pages = Buffer.alloc(MAX_BATCH_BYTES, 0x5a);
  const checked = Buffer.alloc(0);
  const cpuBefore = process.cpuUsage();
  const until = performance.now() + milliseconds;
  let sent = 0;
  while (sent === 0 || (performance.now() < until && sent < MOST_BYTES)) {
    await connection.send({ type: FrameType.filler, checked, pages });
    sent += pages.length;
  }
  await connection.sendControl({ kind: 'probe-end' });
  const { bytes, microseconds } = await connection.expect('probed');
  const seconds = Math.max(microseconds, 1) / 1e6;
  const { user, system } = process.cpuUsage(cpuBefore);
  await connection.sendControl({ kind: 'goodbye' });
  await connection.close();
  return {
    bytes,
    seconds,
    bytesPerSecond: bytes / seconds,
    roundTripSeconds,
    cpuSecondsPerByte: (user + system) / 1e6 / sent,
  };
}
