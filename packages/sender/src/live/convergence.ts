/** What a round has shown. */
export interface RoundFigures {
  /** Seconds of the pass that found what changed. */
  readonly passSeconds: number;
  /** Bytes of pages that were sent. */
  readonly sentBytes: number;
  /** Seconds from the moment on from which changes counted for this round until its own pass began. */
  readonly dirtySeconds: number;
  /** Seconds that finding and sending took: what changes in them is left for the next round. */
  readonly seconds: number;
}

/** Seconds for what comes on top: saving and loading the state of devices, a few words to and fro. */
const FIXED_SECONDS = 0.04;
/** What computing both roots takes, as a share of the pass. */
const ROOT_SHARE = 0.15;
/** Rounds without progress after which more of them lead nowhere. */
const PATIENCE = 3;
/** What counts as progress: at most this share of the best expectation before. */
const PROGRESS = 0.9;

/**
 * When to stop the guest: when the downtime that is to be expected is within its limit. The final pass over all
 * memory counts in, so it grows with resident memory:
 *
 *      expected = final pass and root + (bytes that change during a round / rate of sending) + a fixed part
 */
export class Convergence {
  readonly #limitSeconds: number;
  readonly #maxRounds: number;
  #expectedSeconds = Infinity;
  #dirtyBytesPerSecond = 0;
  #best = Infinity;
  #roundsWithoutProgress = 0;
  #rounds = 1;

  /** @param limitMs the downtime that is allowed, milliseconds; @param maxRounds the first included */
  constructor(limitMs: number, maxRounds: number) {
    this.#limitSeconds = limitMs / 1000;
    this.#maxRounds = maxRounds;
  }

  /** Milliseconds that the guest would stand still if it were stopped now; Infinity before anything is known. */
  get expectedMs(): number {
    return this.#expectedSeconds * 1000;
  }

  get dirtyBytesPerSecond(): number {
    return this.#dirtyBytesPerSecond;
  }

  /** Whether to stop now. */
  get isReached(): boolean {
    return this.#expectedSeconds <= this.#limitSeconds;
  }

  /** Whether it is not time to stop, and more rounds lead nowhere or may not be made. */
  get isHopeless(): boolean {
    if (this.isReached) return false;
    return this.#rounds >= this.#maxRounds || this.#roundsWithoutProgress >= PATIENCE;
  }

  /**
   * Takes in the figures of a round after the first.
   * @param bytesPerSecond at which memory was sent so far
   */
  note(round: RoundFigures, bytesPerSecond: number): void {
    this.#rounds++;
    this.#dirtyBytesPerSecond = round.sentBytes / Math.max(round.dirtySeconds, 0.001);
    // A working set is written again and again: what changes in a short time is no less than its share, and no more
    // than what was found.
    const dirty = Math.min(round.sentBytes, this.#dirtyBytesPerSecond * round.seconds);
    this.#expectedSeconds = FIXED_SECONDS + round.passSeconds * (1 + ROOT_SHARE) + dirty / Math.max(bytesPerSecond, 1);
    if (this.#expectedSeconds <= this.#best * PROGRESS) this.#roundsWithoutProgress = 0;
    else this.#roundsWithoutProgress++;
    this.#best = Math.min(this.#best, this.#expectedSeconds);
  }

  /** Something has changed that may help: begins to count rounds without progress anew. */
  hopeAgain(): void {
    this.#roundsWithoutProgress = 0;
    this.#best = Infinity;
  }
}
