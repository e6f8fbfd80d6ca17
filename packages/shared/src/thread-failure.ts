import { closeSync, openSync } from 'node:fs';
import { BallastError, ErrorCode, outOfDescriptors, systemCode } from './errors.js';

/** What the thread of a channel has open, its connection included, is 6; the rest is for what it reads when it starts. */
const DESCRIPTORS_OF_A_THREAD = 8;

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
