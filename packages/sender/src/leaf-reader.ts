import { nonZeroMask } from '@ballast/shared/integrity';
import { Cause, noStopwatch, type Stopwatch } from '@ballast/shared/measure';
import { LEAF_PAGES, PAGE_SIZE, offsetOf, pageAt, popCount, type ExtentSet } from '@ballast/shared/memory';
import type { PageReads } from './source/memory-source.js';

/** A leaf of which some pages were read. */
export interface ReadLeaf {
  readonly leaf: number;
  /** Pages that were read and scanned: bit n is page n of the leaf. The others are free. */
  readonly scanned: number;
  /** Pages of those that are not zero. */
  readonly mask: number;
  /** Where the pages that were copied lie in memory, without gaps: the scanned ones, less those found to be zero before. */
  readonly at: number;
  /** The pages that are not zero, counted among the copied ones: what `PageBatch.pack` wants. */
  readonly keep: number;
}

/** Leaves of one stretch: reads are large enough that the system call costs little, and stay in the cache. */
const STRETCH_LEAVES = 8;

/**
 * Walks the pages of a region that are to be scanned, by ascending address, a stretch of leaves at a time. It reads
 * nothing outside them: no hole is touched and no free page read.
 *
 * It counts in pages. Byte offsets beyond 2 GiB are no small integers to V8, and neither is, in code that is not compiled
 * yet, the difference of two of them: once they came, all that is called with one would be compiled again.
 */
export class LeafReader {
  #reads: Pick<PageReads, 'read' | 'isZero'>;
  #scan: ExtentSet;
  #stopwatch: Stopwatch;
  /** The run of `scan` that is next, the page in it, and the page after its last. */
  #run = 0;
  #page = 0;
  #runEnd = 0;

  /** @param scan bytes to read, whole pages */
  constructor(reads: Pick<PageReads, 'read' | 'isZero'>, scan: ExtentSet, stopwatch: Stopwatch = noStopwatch) {
    this.#reads = reads;
    this.#stopwatch = stopwatch;
    this.#scan = scan;
    this.#enter(0);
  }

  /** Whether all was read. */
  get done(): boolean {
    return !this.#more();
  }

  /**
   * Reads the next stretch into `memory` from `at` on. Runs of the file that touch are read at once, whatever leaves
   * they belong to.
   * @param maxLeaves at most so many leaves; `memory` has room for all of their pages
   * @returns the leaves, ascending, each with all of its scanned pages
   * @throws BallastError SOURCE_CHANGED, READ
   */
  readStretch(memory: Buffer, at: number, maxLeaves: number): ReadLeaf[] {
    this.#stopwatch.switchTo(Cause.read);
    const planned: { leaf: number; scanned: number; copied: number; at: number }[] = [];
    let end = at;
    let read = { page: this.#page, at, pages: 0 };
    const flushRead = (): void => {
      if (read.pages === 0) return;
      this.#reads.read(memory.subarray(read.at, read.at + read.pages * PAGE_SIZE), offsetOf(read.page));
    };

    while (this.#more() && planned.length < Math.min(maxLeaves, STRETCH_LEAVES)) {
      const leaf = Math.floor(this.#page / LEAF_PAGES);
      const first = leaf * LEAF_PAGES;
      const leafAt = end;
      let scanned = 0;
      let copied = 0;
      while (this.#more() && this.#page < first + LEAF_PAGES) {
        const start = this.#page;
        const stop = Math.min(this.#runEnd, first + LEAF_PAGES);
        const bits = pageBits(start - first, stop - first);
        scanned |= bits;
        this.#advance(stop);
        if (this.#isZeroInPlace(start, stop - start)) continue;
        copied |= bits;
        if (start !== read.page + read.pages) {
          flushRead();
          read = { page: start, at: end, pages: 0 };
        }
        read.pages += stop - start;
        end += (stop - start) * PAGE_SIZE;
      }
      planned.push({ leaf, scanned, copied, at: leafAt });
    }
    flushRead();
    this.#stopwatch.switchTo(Cause.scan);
    return planned.map(({ leaf, scanned, copied, at: leafAt }) => {
      const keep = copied === 0 ? 0 : nonZeroMask(memory, leafAt, popCount(copied));
      return { leaf, scanned, mask: deposit(keep, copied), at: leafAt, keep };
    });
  }

  /** Whether the pages were seen to be zero where they are; false where that needs a copy first. */
  #isZeroInPlace(page: number, pages: number): boolean {
    if (this.#reads.isZero === undefined) return false;
    this.#stopwatch.switchTo(Cause.scan);
    const isZero = this.#reads.isZero(offsetOf(page), pages * PAGE_SIZE);
    this.#stopwatch.switchTo(Cause.read);
    return isZero;
  }

  #more(): boolean {
    return this.#run < this.#scan.count;
  }

  #advance(stop: number): void {
    this.#page = stop;
    if (stop === this.#runEnd) this.#enter(this.#run + 1);
  }

  #enter(run: number): void {
    this.#run = run;
    if (!this.#more()) return;
    this.#page = pageAt(this.#scan.start(run));
    this.#runEnd = pageAt(this.#scan.end(run));
  }
}

/** Bits `start` to `end` - 1. */
function pageBits(start: number, end: number): number {
  return (1 << end) - (1 << start);
}

/** Puts the n-th bit of `bits` where the n-th set bit of `mask` is (the instruction pdep). */
function deposit(bits: number, mask: number): number {
  if (mask === 0xffff) return bits;
  let result = 0;
  for (let rest = mask, n = 0; rest !== 0; n++) {
    const lowest = rest & -rest;
    if ((bits & (1 << n)) !== 0) result |= lowest;
    rest ^= lowest;
  }
  return result;
}
