import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { RegionManifest, addEntries, digestOf, entriesOf, type ManifestEntries } from '@ballast/shared/integrity';
import { ByteCount, Cause, type Stopwatch } from '@ballast/shared/measure';
import {
  LEAF_PAGES,
  LEAF_SIZE,
  PAGE_SIZE,
  PageCoverage,
  alignedBuffer,
  offsetOf,
  type CoveredPages,
} from '@ballast/shared/memory';
import {
  MAX_LEAF_ATTEMPTS,
  decodeLeafRecords,
  decodeRanges,
  decodeWhiteouts,
  type Frame,
  type LeafRecord,
  type PageRun,
} from '@ballast/shared/protocol';
import { packPages, type Basis } from './basis.js';
import type { LeafUnpacker } from './leaf-unpacker.js';
import type { RegionStore } from './destination/region-store.js';

/** Leaves that may be wrong at once; more of them are no accident on the way. */
const MAX_WRONG_LEAVES = 65536;
const NO_DIGEST = Buffer.alloc(0);
/** Pages written before they are read back: few enough to be in the cache still. */
const STORE_PAGES = 64;

/** What one channel received of a region, for the thread that puts the parts together. */
export interface ReceivedPart {
  readonly entries: ManifestEntries;
  readonly covered: CoveredPages;
  /** Leaves that did not arrive as they were sent, and how often. */
  readonly wrong: ReadonlyMap<number, number>;
}

/**
 * One region on its way in: applies frames to the store, reads back what was stored, and keeps the books. Each page is
 * told about exactly once, sent or released; each leaf's digest is computed from what the store gives back.
 */
export class ReceivedRegion {
  readonly manifest: RegionManifest;
  readonly store: RegionStore;
  readonly #index: number;
  readonly #readsBack: boolean;
  /** What need not come over the wire; undefined when that is nothing. */
  readonly #basis: Basis | undefined;
  /** Pages told about in this round. */
  #coverage: PageCoverage;
  /** Whether what is told replaces what was told before: in all live rounds but the first. */
  #replaces = false;
  readonly #stopwatch: Stopwatch;
  /** Leaves that did not arrive as they were sent, and are expected again: how often each was wrong. */
  readonly #wrong = new Map<number, number>();
  #leaf = alignedBuffer(LEAF_SIZE);
  readonly #sent = new ByteCount();

  constructor(index: number, store: RegionStore, readsBack: boolean, basis: Basis | undefined, stopwatch: Stopwatch) {
    this.#index = index;
    this.#stopwatch = stopwatch;
    this.store = store;
    this.#readsBack = readsBack;
    this.#basis = basis;
    this.manifest = new RegionManifest(store.bytes);
    this.#coverage = new PageCoverage(store.bytes / PAGE_SIZE);
  }

  /** Bytes of memory that were told about so far. */
  get coveredBytes(): number {
    return this.#coverage.covered * PAGE_SIZE;
  }

  /** Bytes of pages that came. */
  get sentBytes(): number {
    return this.#sent.bytes;
  }

  get wrongLeaves(): readonly number[] {
    return [...this.#wrong.keys()];
  }

  /**
   * Begins another live round: of what is told from here on each leaf takes the place of what was told of it before.
   * @throws BallastError PROTOCOL when the first round was not complete
   */
  beginRound(): void {
    if (!this.#replaces) this.checkComplete();
    this.#replaces = true;
    this.#coverage = new PageCoverage(this.#coverage.pages);
  }

  /** @throws BallastError PROTOCOL, WRITE */
  applyRanges({ header, payload }: Frame): void {
    for (const run of decodeRanges(payload, header.count, header.base, this.#coverage.pages)) this.#release(run);
  }

  /** @throws BallastError PROTOCOL, WRITE */
  applyWhiteouts({ header, payload }: Frame): void {
    for (const run of decodeWhiteouts(payload, header.count, this.#coverage.pages)) this.#release(run);
  }

  /**
   * Stores the pages of a leaves frame and checks each leaf against its digest. What is read back takes the place of what
   * came, in the same memory: that is still in the cache, and another megabyte would not be.
   * @returns leaves of this frame that are not what was sent
   * @throws BallastError PROTOCOL, WRITE, NO_SPACE, READ
   */
  applyLeaves({ header, payload }: Frame, unpacker: LeafUnpacker): number[] {
    const expected = decodeLeafRecords(header, payload, this.store.bytes, unpacker.compressions);
    for (const record of expected) this.#expectLeaf(record);
    const { records, pages, damaged } = unpacker.unpack(expected, payload);
    this.#stopwatch.switchTo(Cause.store);
    this.#storePages(records, pages);
    this.#stopwatch.switchTo(Cause.hash);
    for (const record of damaged) this.#noteWrong(record);
    return [...damaged, ...records.filter((record) => !this.#settle(record, pages))].map((record) => record.leaf);
  }

  /** What was received, as arrays that are made for it. */
  part(): ReceivedPart {
    return { entries: entriesOf(this.manifest), covered: this.#coverage.packed(), wrong: this.#wrong };
  }

  /**
   * Adds what a channel has received to the books.
   * @throws BallastError PROTOCOL when a page of it was told about on another one, too
   */
  absorb({ entries, covered, wrong }: ReceivedPart): void {
    if (!this.#coverage.merge(covered)) {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `the sender told about the same page of memory file ${this.#index} on two channels`,
      );
    }
    addEntries(this.manifest, entries);
    for (const [leaf, attempts] of wrong) this.#wrong.set(leaf, attempts);
  }

  /**
   * Checks that the books are complete: every page was told about.
   * @throws BallastError PROTOCOL when pages were never told about
   */
  checkComplete(): void {
    // Later rounds tell of changes only.
    const page = this.#replaces ? undefined : this.#coverage.firstUncovered();
    if (page === undefined) return;
    throw new BallastError(
      ErrorCode.PROTOCOL,
      `the sender said that it was done, but never told about the page at offset ${page * PAGE_SIZE} of memory file ${this.#index}`,
    );
  }

  /** The leaf must be new, or one that was asked for again, whole. */
  #expectLeaf({ leaf, mask, sent }: LeafRecord): void {
    if (this.#replaces) {
      this.#replaceLeaf(leaf, mask, sent);
      return;
    }
    const again = this.#wrong.has(leaf);
    if (sent !== mask && (again || this.#basis === undefined)) {
      throw new BallastError(ErrorCode.PROTOCOL, `the sender left out pages of leaf ${leaf} that nothing here holds`);
    }
    if (!again && !this.#coverage.coverLeaf(leaf, mask)) throw this.#toldTwice(leaf * LEAF_PAGES);
  }

  /** In a later live round: pages that are not in the leaf any more go, and pages that were left out stay as they are. */
  #replaceLeaf(leaf: number, mask: number, sent: number): void {
    const first = leaf * LEAF_PAGES;
    const pages = Math.min(LEAF_PAGES, this.#coverage.pages - first);
    const again = this.#wrong.has(leaf);
    // After the end a leaf comes again only where it was asked for.
    if (!this.#coverage.cover(first, first + pages) && !again) throw this.#toldTwice(first);
    const here = again ? 0 : this.manifest.mask(leaf);
    if ((mask & ~sent & ~here) !== 0) {
      throw new BallastError(ErrorCode.PROTOCOL, `the sender left out pages of leaf ${leaf} that nothing here holds`);
    }
    const gone = (again ? 2 ** pages - 1 : here) & ~mask;
    for (let page = 0; page < pages; page++) {
      if ((gone & (1 << page)) === 0) continue;
      const start = (first + page) * PAGE_SIZE;
      this.store.release(start, start + PAGE_SIZE);
    }
  }

  /** In a later live round: leaves that became empty. */
  #forgetLeaves({ start, end }: PageRun): void {
    if (start % LEAF_PAGES !== 0 || (end % LEAF_PAGES !== 0 && end !== this.#coverage.pages)) {
      throw new BallastError(ErrorCode.PROTOCOL, `the sender released a part of a leaf near page ${start}`);
    }
    for (let leaf = start / LEAF_PAGES; leaf * LEAF_PAGES < end; leaf++) {
      this.manifest.set(leaf, 0, NO_DIGEST);
      this.#wrong.delete(leaf);
    }
  }

  #release({ start, end }: PageRun): void {
    if (!this.#coverage.cover(start, end)) throw this.#toldTwice(start);
    if (this.#replaces) this.#forgetLeaves({ start, end });
    this.store.release(start * PAGE_SIZE, end * PAGE_SIZE);
  }

  #toldTwice(page: number): BallastError {
    return new BallastError(
      ErrorCode.PROTOCOL,
      `the sender told twice about a page near offset ${page * PAGE_SIZE} of memory file ${this.#index}`,
    );
  }

  /** Runs of pages that touch in the file touch in the payload, too: each is one write and one read. */
  #storePages(records: readonly LeafRecord[], pages: Buffer): void {
    let run = { page: -1, at: 0, pages: 0 };
    const store = (): void => {
      if (run.pages === 0) return;
      const bytes = pages.subarray(run.at, run.at + run.pages * PAGE_SIZE);
      const offset = offsetOf(run.page);
      this.store.write(offset, bytes);
      if (this.#readsBack) this.store.read(offset, bytes);
      this.#sent.add(bytes.length);
    };
    for (const { leaf, sent, at } of records) {
      let from = at;
      for (let n = 0; n < LEAF_PAGES; n++) {
        if ((sent & (1 << n)) === 0) continue;
        const page = leaf * LEAF_PAGES + n;
        if (page !== run.page + run.pages || run.pages >= STORE_PAGES) {
          store();
          run = { page, at: from, pages: 0 };
        }
        run.pages++;
        from += PAGE_SIZE;
      }
    }
    store();
  }

  /** Compares what the store has of a leaf by now with what the sender has. */
  #settle(record: LeafRecord, arrived: Buffer): boolean {
    const { leaf, mask, digest } = record;
    const found = this.#digestNow(record, arrived);
    if (found.equals(digest)) {
      this.#wrong.delete(leaf);
      this.manifest.set(leaf, mask, found);
      return true;
    }
    this.#noteWrong(record);
    return false;
  }

  #noteWrong({ leaf, mask, sent }: LeafRecord): void {
    // Pages that were left out may have been a hint's mistake, which costs the leaf, not an attempt.
    const attempts = (this.#wrong.get(leaf) ?? 0) + (sent === mask ? 1 : 0);
    this.#wrong.set(leaf, attempts);
    if (attempts >= MAX_LEAF_ATTEMPTS || this.#wrong.size > MAX_WRONG_LEAVES) {
      throw new BallastError(
        ErrorCode.DIGEST_MISMATCH,
        `${this.#wrong.size} leaves are not what was sent, one of them ${attempts} times in a row; check the link, and the memory and the disk of both machines`,
      );
    }
  }

  #digestNow({ leaf, mask, sent, at, stored, digest }: LeafRecord, arrived: Buffer): Buffer {
    if (sent === mask) return digestOf(arrived.subarray(at, at + stored));
    if (this.#replaces) return this.#digestStored(leaf, mask);
    if (sent === 0 && this.#basis?.isInStore(leaf, mask, digest) === true) return digest;
    this.#basis?.fill(leaf, mask & ~sent);
    return this.#digestStored(leaf, mask);
  }

  #digestStored(leaf: number, mask: number): Buffer {
    const offset = leaf * LEAF_SIZE;
    const bytes = this.#leaf.subarray(0, Math.min(LEAF_SIZE, this.store.bytes - offset));
    this.store.read(offset, bytes);
    return digestOf(packPages(bytes, mask));
  }
}
