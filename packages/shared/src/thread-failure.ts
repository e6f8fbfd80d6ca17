import { BallastError, ErrorCode, systemCode } from './errors.js';

/** What Node.js calls a thread that it could not start: it had no descriptor for the thread's loop, or no memory. */
const NOT_STARTED: ReadonlySet<string> = new Set(['ERR_WORKER_INIT_FAILED', 'ERR_WORKER_OUT_OF_MEMORY']);

/**
 * What the `error` event of a worker thread means.
 * @returns BallastError BUSY when there was nothing left to start it with, of which others may give some back
 */
export function threadFailure(error: unknown): BallastError {
  if (!(error instanceof Error) || !NOT_STARTED.has(systemCode(error) ?? '')) return BallastError.from(error);
  return new BallastError(
    ErrorCode.BUSY,
    `the thread of a channel cannot be started (${error.message}); allow more with ulimit -n and -u, or use fewer channels`,
    { cause: error },
  );
}
