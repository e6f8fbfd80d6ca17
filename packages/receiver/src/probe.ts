import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { FrameType, MAX_PROBE_BYTES, MAX_PROBE_SECONDS } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';

/**
 * Takes in filler frames and forgets them, and tells how many bytes came in which time. Nothing is stored, and both the
 * bytes and the time are bounded, so it costs whoever asks as much as it costs here. Ends the connection.
 * @throws BallastError PROTOCOL, TIMEOUT, or the connection's failure
 */
export async function serveProbe(connection: Connection): Promise<void> {
  const timer = setTimeout(() => {
    connection.fail(
      new BallastError(
        ErrorCode.TIMEOUT,
        `a probe of the link takes ${MAX_PROBE_SECONDS} s at most, and this one took longer`,
      ),
    );
  }, MAX_PROBE_SECONDS * 1000);
  try {
    await connection.sendControl({ kind: 'probe-ready' });
    const started = performance.now();
    const bytes = await takeFiller(connection);
    const microseconds = Math.round(Math.min(1000 * (performance.now() - started), 1e6 * MAX_PROBE_SECONDS));
    await connection.sendControl({ kind: 'probed', bytes, microseconds });
    await connection.expect('goodbye');
    await connection.close();
  } finally {
    clearTimeout(timer);
  }
}

/** Returns the bytes that came before `probe-end`. */
async function takeFiller(connection: Connection): Promise<number> {
  for (let bytes = 0; ;) {
    const { control, frame } = await connection.next();
    if (control?.kind === 'probe-end') return bytes;
    if (frame?.header.type !== FrameType.filler) {
      throw new BallastError(ErrorCode.PROTOCOL, 'the sender sent something else than filler in a probe of the link');
    }
    bytes += frame.payload.length;
    if (bytes > MAX_PROBE_BYTES)
      throw new BallastError(ErrorCode.PROTOCOL, `a probe of the link may carry ${MAX_PROBE_BYTES} bytes at most`);
  }
}
