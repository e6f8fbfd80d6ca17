/** Seconds over which a rate is taken: long enough to be steady, short enough to show a stall soon. */
const WINDOW_SECONDS = 5;
/** Seconds between samples that are kept; the window then holds a hundred at most, however often it is fed. */
const SPACING_SECONDS = 0.05;
/** Seconds before there is a rate at all: what a few milliseconds show is noise. */
const LEAST_SECONDS = 0.4;

interface Sample {
  readonly seconds: number;
  readonly value: number;
}

/** How fast a growing number grows, over a sliding window. */
export class RateWindow {
  #samples: Sample[] = [];

  /**
   * @param seconds on any clock that does not go back
   * @param value the number now; one that fell starts the window anew
   */
  add(seconds: number, value: number): void {
    const last = this.#samples.at(-1);
    if (last !== undefined && value < last.value) this.reset();
    const before = this.#samples.at(-2);
    if (before !== undefined && last !== undefined && last.seconds - before.seconds < SPACING_SECONDS) {
      this.#samples.pop();
    }
    this.#samples.push({ seconds, value });
    // The sample just outside stays: it is where the window begins.
    while ((this.#samples[1]?.seconds ?? seconds) < seconds - WINDOW_SECONDS) this.#samples.shift();
  }

  /** The value's growth a second; undefined until enough was seen. */
  get perSecond(): number | undefined {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.seconds - first.seconds < LEAST_SECONDS) return undefined;
    return (last.value - first.value) / (last.seconds - first.seconds);
  }

  /** Forgets what it saw. */
  reset(): void {
    this.#samples = [];
  }
}
