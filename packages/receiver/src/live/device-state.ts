import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { FrameType } from '@ballast/shared/protocol';
import { MAX_STATE_BYTES } from '@ballast/shared/qmp';
import type { Connection } from '@ballast/shared/transport';
import type { IncomingGuest } from './incoming-guest.js';

/**
 * Hands the device state from the connection to the waiting guest, as it comes.
 * @returns whether the guest ran before, and so is to run afterwards
 * @throws BallastError PROTOCOL; GUEST, QMP when QEMU does not take it
 */
export async function receiveDeviceState(connection: Connection, guest: IncomingGuest): Promise<boolean> {
  let bytes = 0;
  for (;;) {
    const { control, frame } = await connection.next();
    if (frame !== undefined) {
      if (frame.header.type !== FrameType.state) {
        throw new BallastError(
          ErrorCode.PROTOCOL,
          `the sender sent a frame of type ${frame.header.type} where device state was expected`,
        );
      }
      bytes += frame.payload.length;
      if (bytes > MAX_STATE_BYTES) {
        throw new BallastError(
          ErrorCode.PROTOCOL,
          `the sender sent more than ${MAX_STATE_BYTES} bytes of device state; no guest has so much`,
        );
      }
      await guest.feed(frame.payload);
    } else if (control.kind === 'state-end' && control.bytes === bytes) {
      await guest.load();
      return control.running;
    } else {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `the sender sent '${control.kind}' after ${bytes} bytes of device state`,
      );
    }
  }
}
