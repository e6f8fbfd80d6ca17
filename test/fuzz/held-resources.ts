import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** What sessions that are over must have given back. */
interface Held {
  /** Timers, sockets, ports and whatever else keeps Node.js waiting, in this thread. */
  readonly waitingFor: number;
  /** Descriptors and threads of the process. */
  readonly descriptors: number;
  readonly threads: number;
}

/** Of Node's own: its pool of threads, what it opens for the first file or thread, and timers of its own. */
const SLACK = 16;
const PATIENCE_MS = 10_000;

export function heldResources(): Held {
  return {
    waitingFor: process.getActiveResourcesInfo().length,
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
  };
}

/**
 * Waits until no more is held than before, since closing takes a moment.
 * @returns what is still held, in words; undefined when nothing is
 */
export async function heldSince(before: Held): Promise<string | undefined> {
  for (const deadline = performance.now() + PATIENCE_MS; ;) {
    const now = heldResources();
    const more = (kind: keyof Held): boolean => now[kind] > before[kind] + SLACK;
    if (!more('waitingFor') && !more('descriptors') && !more('threads')) return undefined;
    if (performance.now() > deadline)
      return `${JSON.stringify(now)} is held, and was ${JSON.stringify(before)} before: ${process.getActiveResourcesInfo().slice(0, 40).join(' ')}`;
    await sleep(100);
  }
}
