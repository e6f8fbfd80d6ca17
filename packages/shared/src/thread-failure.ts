import { closeSync, openSync } from 'node:fs';
import { BallastError, ErrorCode, outOfDescriptors, systemCode } from './errors.js';

/** What the thread of a channel has open, its connection included, is 6; the rest is for what it reads when it starts. */
const DESCRIPTORS_OF_A_THREAD = 8;

/**
 * What the `error` event of a worker thread means.
 * @returns BallastError BUSY when it could not be started, or had no memory left: without channels it may go on
 */
export function threadFailure(error: unknown): BallastError {
  if (!(error instanceof Error)) return BallastError.from(error);
  const options = { cause: error };
  switch (systemCode(error)) {
    case 'ERR_WORKER_INIT_FAILED':
      return new BallastError(
        ErrorCode.BUSY,
        `the thread of a channel cannot be started (${error.message}); allow more with ulimit -n and -u, or use fewer channels`,
        options,
      );
    // Of a thread that runs, too: each has a heap of its own, which Node.js bounds by the machine's memory.
    case 'ERR_WORKER_OUT_OF_MEMORY':
      return new BallastError(
        ErrorCode.BUSY,
        `the thread of a channel has no memory left (${error.message}); use fewer channels, or allow more with NODE_OPTIONS=--max-old-space-size=MIB`,
        options,
      );
    default:
      return BallastError.from(error);
  }
}

/**
 * Makes sure, before the first is started, that there are descriptors for so many threads of channels. One that Node.js
 * cannot start for want of them costs the process a descriptor for good, as libuv leaves its epoll open then: a few such
 * threads take what the session needs to go on without them.
 * @throws BallastError BUSY when there are not
 */
export function checkThreadRoom(threads: number): void {
  const taken: number[] = [];
  try {
    while (taken.length < threads * DESCRIPTORS_OF_A_THREAD) taken.push(openSync('/', 'r'));
  } catch (error) {
    const code = systemCode(error);
    if (code === 'EMFILE' || code === 'ENFILE') throw outOfDescriptors(code, error);
  } finally {
    for (const fd of taken) closeSync(fd);
  }
}
