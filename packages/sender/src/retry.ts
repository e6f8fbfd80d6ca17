import { setTimeout } from 'node:timers/promises';
import { BallastError, ErrorCode, isRetryable } from '@ballast/shared/errors';
import type { RetryEvent } from '@ballast/shared/events';
import { aborted } from './connect.js';

const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5000;
/** Milliseconds for which a receiver that is busy at the first connection may get free: it may still be ending another. */
const BUSY_GRACE_MS = 2000;

/** How a receiver that ends meets another connection. */
const GONE: ReadonlySet<ErrorCode> = new Set([ErrorCode.CONNECT, ErrorCode.CONNECTION_LOST, ErrorCode.ABORTED]);

export interface RetryOptions {
  /** Milliseconds for which to try again, counted anew whenever `progress` has grown. */
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
  readonly onRetry: (event: RetryEvent) => void;
}

/** What tells whether trying again leads anywhere. */
export interface Attempts<T> {
  /** Makes a connection and does all of the work on it. */
  attempt(): Promise<T>;
  /** Whether a connection was ever accepted by the other side: before that, nobody listening is an error of the user's. */
  readonly accepted: boolean;
  /** Bytes that got through so far, or were found not to be wanted: grows when a connection got further than those before. */
  readonly progress: number;
  /** Whether what was begun cannot be begun again: then the first failure is the last. */
  readonly isOver?: boolean;
}

/**
 * Attempts until one succeeds, with growing pauses between them.
 * @throws BallastError the error of the last attempt when it is not about the connection, or no time is left; ABORTED
 */
export async function withRetries<T>(attempts: Attempts<T>, { retryMs, signal, onRetry }: RetryOptions): Promise<T> {
  let deadline = Infinity;
  let pause = FIRST_PAUSE_MS;
  let progress = attempts.progress;
  let busy: BallastError | undefined;
  for (let failures = 1; ; failures++) {
    let error: BallastError;
    try {
      return await attempts.attempt();
    } catch (thrown) {
      error = BallastError.from(thrown);
    }
    if (attempts.isOver === true) throw error;
    // However long the first connection stood, that was no time of trying again.
    if (failures === 1 || attempts.progress > progress) {
      progress = attempts.progress;
      deadline = performance.now() + retryMs;
      pause = FIRST_PAUSE_MS;
    }
    // A greeting that was damaged on the way says nothing against the receiver.
    if (!attempts.accepted && error.code !== ErrorCode.CORRUPT_STREAM) {
      // A receiver that was busy and is gone by now, or ends just now, which turns away or resets a connection that it has
      // not served yet: what it said is the reason.
      const isGone = GONE.has(error.code) && signal?.aborted !== true;
      if (error.code !== ErrorCode.BUSY) throw isGone && busy !== undefined ? busy : error;
      busy = error;
      deadline = Math.min(deadline, performance.now() + BUSY_GRACE_MS - failures * FIRST_PAUSE_MS);
    }
    if (!isRetryable(error) || signal?.aborted === true || performance.now() + pause > deadline) throw error;
    const { code, message } = error;
    onRetry({ event: 'retry', code, message, attempt: failures, inSeconds: pause / 1000 });
    try {
      await setTimeout(pause, undefined, signal === undefined ? {} : { signal });
    } catch {
      throw aborted();
    }
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}
