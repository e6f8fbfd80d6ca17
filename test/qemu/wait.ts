import { setTimeout as sleep } from 'node:timers/promises';

/** How often a condition that nobody reports is looked at again. */
const POLL_MS = 50;

/** Waits until `look` finds something, and says what was waited for when it does not come in time. */
export async function poll<T>(what: string, timeoutMs: number, look: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}`);
    await sleep(POLL_MS);
  }
}

/** The value of `promise`, or an error that names what did not come in time. */
export async function within<T>(what: string, timeoutMs: number, promise: Promise<T>): Promise<T> {
  const timer = new AbortController();
  const late = sleep(timeoutMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}`);
  });
  // The timer is cancelled when the promise wins; that rejection is nobody's concern.
  late.catch(() => undefined);
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}
