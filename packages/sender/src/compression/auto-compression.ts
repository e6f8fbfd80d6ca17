import type { Codec } from '@ballast/shared/compression';
import { shrinkWith, type LeafCompression } from './leaf-compression.js';

/** Milliseconds over which rates are measured: for the first decision, and later. */
const FIRST_WINDOW_MS = 15;
const WINDOW_MS = 50;
/** Share of a window spent waiting above which the link, and not this side, is what a transfer waits for. */
const LINK_BOUND = 0.3;
/** Below this share it is this side. */
const BUSY = 0.05;
/** Leaves compressed to learn how well, and how fast. */
const TRIAL_LEAVES = 4;
/** How much faster compressing must promise to be, and then turn out to be. */
const LEAST_PROMISE = 1.1;
const LEAST_GAIN = 1.03;
/** Milliseconds for which a trial is believed. */
const TRIAL_HOLDS_MS = 100;
/** Milliseconds until the next trial: at first, and at most, after trials that promised nothing. */
const FIRST_PATIENCE_MS = 50;
const LONGEST_PATIENCE_MS = 250;
/** Milliseconds without compression after it did not keep its promise, doubled each time. */
const FIRST_PENANCE_MS = 500;
const LONGEST_PENANCE_MS = 30_000;
/**
 * Milliseconds after which a link that is faster than compressing is looked at again, doubled each time: it may be faster
 * still by now.
 */
const FIRST_LOOK_MS = 1000;
const LONGEST_LOOK_MS = 16_000;
/** What is stored of the pages when there was nothing to compress in them. */
const NOTHING_SAVED = 0.95;
/** Leaves that are sent as they are after one that did not shrink, doubled with each such leaf in a row. */
const MOST_SKIPPED = 16;
/** Windows in a row without a gain after which compression ends, so that a short stall of the link ends little. */
const POOR_WINDOWS = 3;
/** Milliseconds within which the promise was wrong, and not the link another by now. */
const PROMISE_MS = 1000;
/** A wait that shows that whatever lies between this side and the link is full. */
const FULL_MS = 1;

/** What some leaves that are tried have come to. */
interface Trial {
  leaves: number;
  pageBytes: number;
  storedBytes: number;
  spentMs: number;
}

function newTrial(): Trial {
  return { leaves: 0, pageBytes: 0, storedBytes: 0, spentMs: 0 };
}

/**
 * Compresses while that makes the transfer faster. What decides are seconds a byte of pages:
 *
 *      as they are   1 / link
 *      compressed    the larger of  reading and hashing + compressing  and  1 / (link x ratio)
 *
 * The link's rate is what arrives while this side waits for it; where this side never waits, nothing is gained. Ratio
 * and speed come from a few leaves that are tried, the first of all and then some now and then. What was promised is
 * checked against the rate that comes of it, since a receiver that writes slowly looks like a slow link.
 */
export class AutoCompression implements LeafCompression {
  readonly #codec: Codec;
  readonly #now: () => number;
  #on = false;
  /** When compression began or ended. */
  #switched = 0;
  #poorWindows = 0;

  /** The window: when it began, how long it is to be, and what was done since. */
  #began: number;
  #windowMs = FIRST_WINDOW_MS;
  #pageBytes = 0;
  #storedBytes = 0;
  #waitedMs = 0;
  /** Bytes that had arrived when the window began, and when a batch was last handed over. */
  #arrivedBefore = 0;
  #arrived = 0;
  /** Whether the buffers between this side and the link are full. */
  #full = false;

  /** Bytes a millisecond that arrived when pages were last sent as they are, and waited for the link. */
  #linkRate = 0;
  #linkSeen = 0;
  /** Milliseconds that a byte of pages costs this side beside compressing it. */
  #workCost = 0;

  #trial: Trial | undefined = newTrial();
  /** The first leaf waits for the library to be loaded, and says nothing of its speed. */
  #warm = false;
  /** The last trial that came to its end, and when. */
  #tried: Trial | undefined;
  #triedAt = 0;
  #nextTrial = 0;
  #patience = FIRST_PATIENCE_MS;
  #penance = FIRST_PENANCE_MS;
  #look = FIRST_LOOK_MS;
  #skip = 0;
  #nextSkip = 1;

  /** @param now milliseconds on a clock that does not go back */
  constructor(codec: Codec, now: () => number = () => performance.now()) {
    this.#codec = codec;
    this.#now = now;
    this.#began = now();
  }

  shrink(pages: Buffer): number {
    const stored = this.#shrink(pages);
    this.#pageBytes += pages.length;
    this.#storedBytes += stored;
    return stored;
  }

  sent(waitedMs: number, arrivedBytes: number): void {
    this.#waitedMs += waitedMs;
    this.#arrived = arrivedBytes;
    const now = this.#now();
    if (!this.#full) {
      if (waitedMs < FULL_MS) return;
      this.#full = true;
      this.#beginWindow(now);
      return;
    }
    const elapsed = now - this.#began;
    if (elapsed < this.#windowMs || this.#pageBytes === 0) return;
    this.#windowMs = WINDOW_MS;
    if (this.#on) this.#reviewCompressed(now, elapsed);
    else this.#reviewAsTheyAre(now, elapsed);
    this.#beginWindow(now);
  }

  #shrink(pages: Buffer): number {
    if (this.#trial !== undefined) return this.#tryLeaf(pages, this.#trial);
    if (!this.#on) return pages.length;
    if (this.#skip > 0) {
      this.#skip--;
      return pages.length;
    }
    const stored = shrinkWith(this.#codec, pages);
    if (stored < pages.length) {
      this.#nextSkip = 1;
    } else {
      this.#skip = this.#nextSkip;
      this.#nextSkip = Math.min(2 * this.#nextSkip, MOST_SKIPPED);
    }
    return stored;
  }

  #reviewAsTheyAre(now: number, elapsed: number): void {
    if (this.#waitedMs / elapsed < LINK_BOUND) return;
    this.#linkRate = (this.#arrived - this.#arrivedBefore) / elapsed;
    this.#linkSeen = now;
    this.#workCost = (elapsed - this.#waitedMs) / this.#pageBytes;
    if (now < this.#nextTrial) return;
    if (this.#tried !== undefined && now - this.#triedAt < TRIAL_HOLDS_MS) this.#judge(this.#tried, now);
    else this.#trial = newTrial();
  }

  #tryLeaf(pages: Buffer, trial: Trial): number {
    const before = this.#now();
    const stored = shrinkWith(this.#codec, pages);
    if (!this.#warm) {
      this.#warm = true;
      return stored;
    }
    const now = this.#now();
    trial.spentMs += now - before;
    trial.pageBytes += pages.length;
    trial.storedBytes += stored;
    trial.leaves++;
    if (trial.leaves === TRIAL_LEAVES) {
      this.#trial = undefined;
      this.#tried = trial;
      this.#triedAt = now;
      if (this.#linkRate > 0) this.#judge(trial, now);
    }
    return stored;
  }

  #judge(trial: Trial, now: number): void {
    this.#tried = undefined;
    const asTheyAre = 1 / this.#linkRate;
    const compressed = Math.max(
      this.#workCost + trial.spentMs / trial.pageBytes,
      trial.storedBytes / trial.pageBytes / this.#linkRate,
    );
    if (asTheyAre > LEAST_PROMISE * compressed) {
      this.#switch(true, now);
    } else {
      this.#nextTrial = now + this.#patience;
      this.#patience = Math.min(2 * this.#patience, LONGEST_PATIENCE_MS);
    }
  }

  #reviewCompressed(now: number, elapsed: number): void {
    const waiting = this.#waitedMs / elapsed;
    if (waiting >= BUSY) this.#linkSeen = now;
    if (this.#storedBytes > NOTHING_SAVED * this.#pageBytes) {
      this.#switch(false, now);
      return;
    }
    this.#poorWindows = this.#pageBytes / elapsed < LEAST_GAIN * this.#linkRate ? this.#poorWindows + 1 : 0;
    if (this.#poorWindows === POOR_WINDOWS) {
      const isWrongPromise = now - this.#switched < PROMISE_MS;
      this.#switch(false, now);
      if (!isWrongPromise) return;
      this.#nextTrial = now + this.#penance;
      this.#penance = Math.min(2 * this.#penance, LONGEST_PENANCE_MS);
    } else if (now - this.#linkSeen > this.#look) {
      this.#switch(false, now);
      this.#look = Math.min(2 * this.#look, LONGEST_LOOK_MS);
    }
  }

  #switch(on: boolean, now: number): void {
    this.#on = on;
    this.#switched = now;
    this.#poorWindows = 0;
    this.#skip = 0;
    this.#nextSkip = 1;
    this.#patience = FIRST_PATIENCE_MS;
    this.#nextTrial = now;
    // A link that is not waited for empties the buffers, which then take anything for a while.
    this.#full = on;
    this.#beginWindow(now);
  }

  #beginWindow(now: number): void {
    this.#began = now;
    this.#arrivedBefore = this.#arrived;
    this.#pageBytes = 0;
    this.#storedBytes = 0;
    this.#waitedMs = 0;
  }
}
