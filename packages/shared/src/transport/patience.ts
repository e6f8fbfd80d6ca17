import { BallastError, ErrorCode } from '../errors.js';

/** The longest wait that may be asked for (24 days): a Node.js timer fires at once when it is given more. */
export const MAX_WAIT_MS = 2 ** 31 - 1;

/** How long one side waits for the other, as the options of a call say it. */
export interface Patience {
  readonly timeoutMs?: number;
  readonly retryMs?: number;
}

/** @throws BallastError USAGE */
export function checkPatience({ timeoutMs = 1, retryMs = 0 }: Patience): void {
  if (!(timeoutMs >= 1 && timeoutMs <= MAX_WAIT_MS))
    throw new BallastError(
      ErrorCode.USAGE,
      `a timeout of ${timeoutMs} ms cannot be kept; expected 1 to ${MAX_WAIT_MS}`,
    );
  if (!(retryMs >= 0))
    throw new BallastError(ErrorCode.USAGE, `nothing can be tried again for ${retryMs} ms; expected 0 or more`);
}
