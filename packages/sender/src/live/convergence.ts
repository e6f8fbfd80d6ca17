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

/** What a sample of memory has shown of the time since it was sent. */
export interface SampleFigures {
  /** Seconds that a pass over all memory will take. */
  readonly passSeconds: number;
  /** Bytes that have changed at most, and wait to be sent. */
  readonly changedBytes: number;
  /** Seconds in which they changed. */
  readonly dirtySeconds: number;
}

/** Seconds for what comes on top: saving and loading the state of devices, a few words to and fro. */
const FIXED_SECONDS = 0.04;
/** What computing both roots takes, as a share of the pass. */
const ROOT_SHARE = 0.15;
/** Rounds without progress after which more of them lead nowhere. */
const PATIENCE = 3;
/** What counts as progress: at most this share of the best expectation before. */
const PROGRESS = 0.9;
/** Passes of which the fastest counts: what slows one down is chance, and nothing of the guest's does once it is stopped. */
const PASSES_KEPT = 3;

/**
 * When to stop the guest: when the downtime that is to be expected is within its limit. The final pass over all
 * memory counts in, so it grows with resident memory:
 *
 *      expected = final pass and root + (bytes that change during a round / rate of sending) + a fixed part
 *
 * Rounds make only the middle part smaller. Where that is less than what would count as progress, they lead nowhere.
 */
export class Convergence {
  readonly #limitSeconds: number;
  readonly #maxRounds: number;
  #expectedSeconds = Infinity;
  #dirtyBytesPerSecond = 0;
  #best = Infinity;
  #roundsWithoutProgress = 0;
  #rounds = 1;
  #passes: number[] = [];
  /** Whether what rounds could still save would be no progress. */
  #isExhausted = false;

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
    return this.#rounds >= this.#maxRounds || this.#roundsWithoutProgress >= PATIENCE || this.#isExhausted;
  }

  /**
   * Takes in what a sample has shown after the first round: then most guests need no other.
   * @param bytesPerSecond at which memory was sent so far
   */
  noteSample({ passSeconds, changedBytes, dirtySeconds }: SampleFigures, bytesPerSecond: number): void {
    this.#dirtyBytesPerSecond = changedBytes / Math.max(dirtySeconds, 0.001);
    this.#expectedSeconds = expected(passSeconds, changedBytes / Math.max(bytesPerSecond, 1));
  }

  /** Takes in that the guest stands still anyway: there is no downtime to be expected. */
  noteStandstill(): void {
    this.#expectedSeconds = 0;
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
    this.#passes = [...this.#passes, round.passSeconds].slice(-PASSES_KEPT);
    const sendSeconds = dirty / Math.max(bytesPerSecond, 1);
    this.#expectedSeconds = expected(Math.min(...this.#passes), sendSeconds);
    // The first pass warms up what the others use.
    this.#isExhausted = this.#passes.length > 1 && sendSeconds < this.#expectedSeconds * (1 - PROGRESS);
    if (this.#expectedSeconds <= this.#best * PROGRESS) this.#roundsWithoutProgress = 0;
    else this.#roundsWithoutProgress++;
    this.#best = Math.min(this.#best, this.#expectedSeconds);
  }

  /** Something has changed that may help: begins to count rounds without progress anew. */
  hopeAgain(): void {
    this.#roundsWithoutProgress = 0;
    this.#isExhausted = false;
    this.#best = Infinity;
  }
}

function expected(passSeconds: number, sendSeconds: number): number {
  return FIXED_SECONDS + passSeconds * (1 + ROOT_SHARE) + sendSeconds;
}
