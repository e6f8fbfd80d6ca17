import type { Account, ThreadAccount } from './account.js';
import { watchPeakMemory } from './peak-memory.js';
import { RunningStopwatch, measureSwitch } from './stopwatch.js';

/** The measurement of one side of one transfer: its main thread's time, that of its channels, and its memory. */
export class SideMeasurement {
  /** Of the thread that made this object. */
  readonly stopwatch = new RunningStopwatch();
  readonly #memory = watchPeakMemory();
  readonly #channels: ThreadAccount[] = [];

  /** Takes the account of another thread. */
  add(account: ThreadAccount): void {
    this.#channels.push(account);
  }

  account(): Account {
    const threads = [this.stopwatch.account('main'), ...this.#channels];
    return { threads, peakBytes: this.#memory.peakBytes(), switchSeconds: measureSwitch() };
  }
}
