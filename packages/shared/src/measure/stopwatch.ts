import { performance } from 'node:perf_hooks';
import type { ThreadAccount } from './account.js';
import { CAUSE_NAMES, Cause, type CauseName } from './cause.js';

/**
 * Partitions the wall time of one thread by cause. At any moment exactly one cause is charged, so the causes add up to
 * the wall time whatever is forgotten; waiting is charged like work.
 */
export interface Stopwatch {
  /** From now on `cause` is charged. Returns the one that was charged until now, to go back to. */
  switchTo(cause: Cause): Cause;
}

/** For the ordinary case, in which nobody measures. */
export const noStopwatch: Stopwatch = { switchTo: () => Cause.other };

/** Reads the clock once a switch, and allocates nothing. */
export class RunningStopwatch implements Stopwatch {
  readonly #milliseconds = new Float64Array(CAUSE_NAMES.length);
  readonly #started = performance.now();
  readonly #idleBefore = performance.eventLoopUtilization().idle;
  #since = this.#started;
  #current: Cause = Cause.other;
  #switches = 0;

  switchTo(cause: Cause): Cause {
    const before = this.#current;
    const now = performance.now();
    this.#milliseconds[before] = (this.#milliseconds[before] ?? 0) + now - this.#since;
    this.#since = now;
    this.#current = cause;
    this.#switches++;
    return before;
  }

  /** The account up to now. The stopwatch goes on. */
  account(thread: string): ThreadAccount {
    const now = performance.now();
    // While a task waits, the event loop moves bytes between the kernel and this process; what it slept is what was waited.
    const slept = performance.eventLoopUtilization().idle - this.#idleBefore;
    const spent = Float64Array.from(this.#milliseconds);
    spent[this.#current] = (spent[this.#current] ?? 0) + now - this.#since;
    const waited = Math.min(spent[Cause.wait] ?? 0, Math.max(slept, 0));
    spent[Cause.data] = (spent[Cause.data] ?? 0) + (spent[Cause.wait] ?? 0) - waited;
    spent[Cause.wait] = waited;
    return {
      thread,
      seconds: (now - this.#started) / 1000,
      causes: Object.fromEntries(CAUSE_NAMES.map((name) => [name, (spent[Cause[name]] ?? 0) / 1000])) as Record<
        CauseName,
        number
      >,
      switches: this.#switches,
    };
  }
}

/** Switches that one calibration counts: a few milliseconds. */
const CALIBRATION_SWITCHES = 50_000;

/** What a switch costs on this machine, in seconds. */
export function measureSwitch(): number {
  const stopwatch = new RunningStopwatch();
  const started = performance.now();
  for (let n = 0; n < CALIBRATION_SWITCHES; n++) stopwatch.switchTo(n % 2 === 0 ? Cause.read : Cause.scan);
  return (performance.now() - started) / 1000 / CALIBRATION_SWITCHES;
}
