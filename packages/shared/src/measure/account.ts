import type { CauseName } from './cause.js';

/** Where the wall time of one thread went. The causes add up to `seconds`; `other` among them is what is unexplained. */
export interface ThreadAccount {
  /** "main", or what the thread is for. */
  readonly thread: string;
  /** Wall time between the start of the measurement and its end. */
  readonly seconds: number;
  /** Seconds by cause. */
  readonly causes: Readonly<Record<CauseName, number>>;
  /** How often the cause changed: each change read the clock once. */
  readonly switches: number;
}

/** One side of one transfer. */
export interface Account {
  readonly threads: readonly ThreadAccount[];
  /** The most memory that the process had resident meanwhile, in bytes. */
  readonly peakBytes: number;
  /** Seconds that one change of cause takes on this machine, measured when the transfer was over. */
  readonly switchSeconds: number;
}

/** The share of a thread's wall time that has a named cause, 0 to 1. */
export function explainedShare({ seconds, causes }: ThreadAccount): number {
  return seconds > 0 ? 1 - causes.other / seconds : 1;
}
