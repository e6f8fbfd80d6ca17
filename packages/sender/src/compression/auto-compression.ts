import type { Codec } from '@ballast/shared/compression';
import { asItIs, storeSmaller, type LeafCompression, type StoredLeaf } from './leaf-compression.js';

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
/** Windows after which it is known what comes of a way, so that a short stall of the link ends little. */
const TELLING_WINDOWS = 3;
/** Milliseconds within which the promise was wrong, and not the link another by now. */
const PROMISE_MS = 1000;
/**
 * How many times as long as a codec in the place of another was tried in vain it is not tried again, doubled each time.
 * What came of it is seen late: what was under way had to arrive first.
 */
const FIRST_CODEC_PENANCE = 8;
/** A wait that shows that whatever lies between this side and the link is full. */
const FULL_MS = 1;

/** What some leaves that are tried have come to, with each codec. */
interface Trial {
  leaves: number;
  pageBytes: number;
  readonly outcomes: readonly { storedBytes: number; spentMs: number }[];
}

/** How pages are sent: with the codec of this index, or as they are. */
type Way = number | undefined;

/** How they were sent before, bytes of pages a millisecond that came of it, and bytes a millisecond that arrived. */
interface Before {
  readonly way: Way;
  readonly rate: number;
  readonly arrivalRate: number;
}

/**
 * Compresses while that makes the transfer faster, with the codec that makes it fastest. What decides are seconds a byte
 * of pages:
 *
 *      as they are   1 / link
 *      compressed    the larger of  reading and hashing + compressing  and  1 / (link x ratio)
 *
 * The link's rate is what arrives while this side waits for it; where this side never waits, nothing is gained. Ratio
 * and speed come from a few leaves that are tried with each codec, the first of all and then some now and then. What was
 * promised is checked against the rate that comes of it, since a receiver that writes slowly, or takes long to restore,
 * looks like a slow link.
 */
export class AutoCompression implements LeafCompression {
  readonly #codecs: readonly Codec[];
  readonly #now: () => number;
  #way: Way;
  /** Since when, and since when what comes of it shows. */
  #switched = 0;
  #shows = 0;
  #before: Before = { way: undefined, rate: 0, arrivalRate: 0 };
  /** Bytes of pages a millisecond of the last windows since then: the best of them counts, a short stall does not. */
  #rates: number[] = [];

  /** The window: when it began, how long it is to be, and what was done since. */
  #began: number;
  #windowMs = FIRST_WINDOW_MS;
  #pageBytes = 0;
  #storedBytes = 0;
  #waitedMs = 0;
  /** Bytes that had arrived when the window began, and when a batch was last handed over. */
  #arrivedBefore = 0;
  #arrived = 0;
  /** Bytes handed over, and those that must have arrived before what comes of a codec shows. */
  #handedOver = 0;
  #showsAt = 0;
  /** Whether the buffers between this side and the link are full. */
  #full = false;

  /** Bytes of pages a millisecond that arrived when they were last sent as they are, and waited for the link. */
  #plainRate = 0;
  /** Bytes a millisecond that the link is believed to carry, compressed or not. */
  #linkRate = 0;
  #arrivalRate = 0;
  #linkSeen = 0;
  /** Milliseconds that a byte of pages costs this side beside compressing it. */
  #workCost = 0;

  #trial: Trial | undefined;
  /** The first leaf waits for the libraries to be loaded, and says nothing of their speed. */
  #warm = false;
  /** The last trial that came to its end, and when. */
  #tried: Trial | undefined;
  #triedAt = 0;
  #nextTrial = 0;
  #patience = FIRST_PATIENCE_MS;
  #penance = FIRST_PENANCE_MS;
  #codecPenance = FIRST_CODEC_PENANCE;
  #look = FIRST_LOOK_MS;
  #skip = 0;
  #nextSkip = 1;

  /**
   * @param codecs in the order in which leaf records count them
   * @param now milliseconds on a clock that does not go back
   */
  constructor(codecs: readonly Codec[], now: () => number = () => performance.now()) {
    this.#codecs = codecs;
    this.#now = now;
    this.#began = now();
    this.#trial = this.#newTrial();
  }

  shrink(pages: Buffer): StoredLeaf {
    this.#pageBytes += pages.length;
    const leaf = this.#shrink(pages);
    this.#storedBytes += leaf.stored;
    return leaf;
  }

  sent(waitedMs: number, arrivedBytes: number, sentBytes: number): void {
    this.#waitedMs += waitedMs;
    this.#arrived = arrivedBytes;
    this.#handedOver = sentBytes;
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
    if (this.#way === undefined) this.#reviewAsTheyAre(now, elapsed);
    else this.#reviewCompressed(now, elapsed);
    this.#beginWindow(now);
  }

  #shrink(pages: Buffer): StoredLeaf {
    if (this.#trial !== undefined) return this.#tryLeaf(pages, this.#trial);
    const codec = this.#way === undefined ? undefined : this.#codecs[this.#way];
    if (this.#way === undefined || codec === undefined) return asItIs(pages);
    if (this.#skip > 0) {
      this.#skip--;
      return asItIs(pages);
    }
    const leaf = storeSmaller(pages, codec.compress(pages), this.#way);
    if (leaf.stored < pages.length) {
      this.#nextSkip = 1;
    } else {
      this.#skip = this.#nextSkip;
      this.#nextSkip = Math.min(2 * this.#nextSkip, MOST_SKIPPED);
    }
    return leaf;
  }

  #reviewAsTheyAre(now: number, elapsed: number): void {
    if (this.#waitedMs / elapsed < LINK_BOUND) return;
    this.#plainRate = (this.#arrived - this.#arrivedBefore) / elapsed;
    this.#linkRate = this.#plainRate;
    this.#linkSeen = now;
    this.#workCost = (elapsed - this.#waitedMs) / this.#pageBytes;
    this.#weigh(now);
  }

  #reviewCompressed(now: number, elapsed: number): void {
    if (this.#waitedMs / elapsed >= BUSY) this.#linkSeen = now;
    if (this.#storedBytes > NOTHING_SAVED * this.#pageBytes) {
      this.#switch(undefined, now);
      return;
    }
    if (this.#arrived < this.#showsAt) {
      this.#shows = now;
      return;
    }
    this.#arrivalRate = (this.#arrived - this.#arrivedBefore) / elapsed;
    this.#linkRate = Math.max(this.#linkRate, this.#arrivalRate);
    this.#rates = [...this.#rates.slice(1 - TELLING_WINDOWS), this.#pageBytes / elapsed];
    const isTelling = this.#rates.length === TELLING_WINDOWS;
    const isNew = now - this.#shows < PROMISE_MS;
    if (isTelling && this.#rate < LEAST_GAIN * (isNew ? this.#before.rate : this.#plainRate)) {
      this.#retreat(now, isNew);
    } else if (now - this.#linkSeen > this.#look) {
      this.#switch(undefined, now);
      this.#look = Math.min(2 * this.#look, LONGEST_LOOK_MS);
    } else if (isTelling && this.#codecs.length > 1) {
      this.#weigh(now);
    }
  }

  /** Bytes of pages a millisecond that come of the way at hand. */
  get #rate(): number {
    return this.#way === undefined ? this.#plainRate : Math.max(...this.#rates);
  }

  /** Thinks about another way, from leaves that were tried just now or will be. */
  #weigh(now: number): void {
    if (now < this.#nextTrial) return;
    if (this.#tried !== undefined && now - this.#triedAt < TRIAL_HOLDS_MS) this.#judge(this.#tried, now);
    else this.#trial = this.#newTrial();
  }

  #newTrial(): Trial {
    return { leaves: 0, pageBytes: 0, outcomes: this.#codecs.map(() => ({ storedBytes: 0, spentMs: 0 })) };
  }

  /** Compresses a leaf with each codec, and stores the smallest that comes of it. */
  #tryLeaf(pages: Buffer, trial: Trial): StoredLeaf {
    let smallest: { readonly bytes: Buffer; readonly codec: number } = { bytes: pages, codec: 0 };
    for (const [index, codec] of this.#codecs.entries()) {
      const before = this.#now();
      const bytes = codec.compress(pages);
      const outcome = trial.outcomes[index];
      if (outcome !== undefined && this.#warm) {
        outcome.spentMs += this.#now() - before;
        outcome.storedBytes += Math.min(bytes.length, pages.length);
      }
      if (bytes.length < smallest.bytes.length) smallest = { bytes, codec: index };
    }
    const leaf = storeSmaller(pages, smallest.bytes, smallest.codec);
    if (!this.#warm) {
      this.#warm = true;
      return leaf;
    }
    trial.pageBytes += pages.length;
    trial.leaves++;
    if (trial.leaves === TRIAL_LEAVES) {
      const now = this.#now();
      this.#trial = undefined;
      this.#tried = trial;
      this.#triedAt = now;
      if (this.#linkRate > 0) this.#judge(trial, now);
    }
    return leaf;
  }

  #judge({ outcomes, pageBytes }: Trial, now: number): void {
    this.#tried = undefined;
    const costs = outcomes.map(({ spentMs, storedBytes }) =>
      Math.max(this.#workCost + spentMs / pageBytes, storedBytes / pageBytes / this.#linkRate),
    );
    // What a way promises is compared with what comes of the one at hand: a receiver may take long to restore.
    let best = this.#way;
    let least = 1 / this.#rate;
    for (const [index, cost] of costs.entries()) {
      if (index === this.#way || least <= LEAST_PROMISE * cost) continue;
      best = index;
      least = cost;
    }
    if (best !== this.#way) {
      this.#switch(best, now, { way: this.#way, rate: this.#rate, arrivalRate: this.#arrivalRate });
    } else {
      this.#nextTrial = now + this.#patience;
      this.#patience = Math.min(2 * this.#patience, LONGEST_PATIENCE_MS);
    }
  }

  /** The way at hand does not gain what it must. */
  #retreat(now: number, isWrongPromise: boolean): void {
    const { way, arrivalRate } = this.#before;
    const tried = now - this.#switched;
    if (!isWrongPromise) {
      this.#switch(undefined, now);
    } else if (way === undefined) {
      this.#switch(undefined, now);
      this.#nextTrial = now + this.#penance;
      this.#penance = Math.min(2 * this.#penance, LONGEST_PENANCE_MS);
    } else {
      // What neither of two codecs brought through is the link's fault.
      this.#linkRate = Math.max(arrivalRate, this.#arrivalRate);
      this.#switch(way, now);
      this.#nextTrial = now + this.#codecPenance * tried;
      this.#codecPenance *= 2;
    }
  }

  /** @param before what the new way has to beat, and where to go back to if it does not */
  #switch(
    way: Way,
    now: number,
    before: Before = { way: undefined, rate: this.#plainRate, arrivalRate: this.#plainRate },
  ): void {
    // Behind one codec lies what another made, in the buffers here and perhaps as much again in the other host's.
    const underWay = this.#way === undefined || way === undefined ? 0 : this.#handedOver - this.#arrived;
    this.#showsAt = this.#arrived + 2 * underWay;
    this.#before = before;
    this.#way = way;
    this.#switched = now;
    this.#shows = now;
    this.#rates = [];
    this.#skip = 0;
    this.#nextSkip = 1;
    this.#patience = FIRST_PATIENCE_MS;
    this.#nextTrial = now;
    // A link that is not waited for empties the buffers, which then take anything for a while.
    this.#full = way !== undefined;
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
