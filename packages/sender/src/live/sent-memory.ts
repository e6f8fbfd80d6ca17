import { HINT_SIZE, RegionManifest, digestOf, pageHints } from '@ballast/shared/integrity';
import { Dialect } from '@ballast/shared/protocol';
import { ExtentSet, LEAF_PAGES, LEAF_SIZE, PAGE_SIZE, leafCount, popCount } from '@ballast/shared/memory';
import type { Connection } from '@ballast/shared/transport';
import { announceBalloonMap, announcerOf, type AnnounceCounts } from '../announcer.js';
import { LeafReader } from '../leaf-reader.js';
import { nextBatch, sendBatch, type WalkCounts } from '../leaf-sender.js';
import type { BatchPool } from '../page-batch.js';
import { differingPages } from '../page-difference.js';
import type { SourceRegion } from '../source/memory-source.js';
import type { LeafNow } from './leaf-digests.js';

const SLOT_BYTES = LEAF_PAGES * HINT_SIZE;
/** Leaves of one piece of the hints' memory: 128 KiB for 64 MiB of guest memory. */
const SLAB_LEAVES = 1024;

/** What of a region has changed, in whole leaves. */
export interface RegionChanges {
  /** Pages to read again. */
  readonly changed: ExtentSet;
  /** Leaves that hold nothing any more. */
  readonly emptied: ExtentSet;
}

export interface ChangeDestination {
  readonly connection: Connection;
  readonly pool: BatchPool;
  readonly region: number;
  readonly announced: AnnounceCounts;
  readonly counts: WalkCounts;
  /** Whether no round comes after this one, for which hints of what is sent would be of use. */
  readonly isLast: boolean;
}

/**
 * What the destination has of one region: what was last sent of each leaf. A round is the difference of this and of what
 * is there now.
 */
export class SentRegion {
  readonly manifest: RegionManifest;
  /** Page hints of what was last sent, for the leaves of which they are known. */
  readonly #hints = new Map<number, { known: Uint8Array; bytes: Buffer }>();
  readonly #source: SourceRegion;

  constructor(source: SourceRegion) {
    this.#source = source;
    this.manifest = new RegionManifest(source.bytes);
  }

  /**
   * Compares what was sent with what is there. Hints that came along are kept where the leaf is as it was sent: then
   * they are hints of what was sent.
   * @param now every leaf of `scan`, ascending
   * @param scan pages that may hold something; all others are free
   */
  changes(now: Iterable<LeafNow>, scan: ExtentSet): RegionChanges {
    const changed = ExtentSet.builder();
    const emptied = ExtentSet.builder();
    let known = 0;
    for (const { leaf, mask, digest, hints } of now) {
      const wasSent = this.manifest.mask(leaf) !== 0;
      if (wasSent) known++;
      if (mask === 0) {
        if (wasSent) emptied.add(...this.#extent(leaf));
      } else if (this.manifest.matches(leaf, mask, digest)) {
        if (hints !== undefined) this.#setHints(leaf, hints);
      } else {
        changed.add(...this.#extent(leaf));
      }
    }
    const gone = known === this.manifest.entries ? ExtentSet.empty : this.#sentOutside(scan);
    return { changed: changed.build().intersect(scan), emptied: emptied.build().union(gone) };
  }

  /** How many of some leaves are not as they were sent. */
  changedLeaves(now: Iterable<LeafNow>): number {
    let changed = 0;
    for (const { leaf, mask, digest } of now) {
      const isAsSent = mask === 0 ? this.manifest.mask(leaf) === 0 : this.manifest.matches(leaf, mask, digest);
      if (!isAsSent) changed++;
    }
    return changed;
  }

  /** The leaf did not arrive as it was sent: it is sent whole, whatever it is by then. */
  distrust(leaf: number): void {
    // No memory has this digest.
    this.manifest.set(leaf, this.manifest.mask(leaf), Buffer.alloc(32));
    const slab = this.#hints.get(Math.floor(leaf / SLAB_LEAVES));
    if (slab !== undefined) slab.known[leaf % SLAB_LEAVES] = 0;
  }

  /**
   * Sends what has changed, as it is now: each leaf is read, hashed, and sent from that one read, and of a leaf only the
   * pages that differ from what was last sent. The destination replaces what it has of these leaves.
   * @throws BallastError SOURCE_CHANGED, READ, or the connection's failure
   */
  async sendChanges({ changed, emptied }: RegionChanges, to: ChangeDestination): Promise<void> {
    const { connection, pool, region, announced, counts, isLast } = to;
    await announceBalloonMap(connection, region, emptied, announced);
    for (const leaf of leavesIn(emptied)) this.manifest.set(leaf, 0, NO_DIGEST);

    const zeros = announcerOf(
      Dialect.ranges,
      connection,
      { region, first: 0, end: this.#source.bytes / PAGE_SIZE },
      announced,
    );
    const reader = new LeafReader(this.#source.reads, changed);
    let batch = await pool.take(connection);
    while (!reader.done) {
      for (const { leaf, scanned, mask, at, keep } of reader.readStretch(batch.memory, batch.filled, batch.room)) {
        counts.scannedBytes += popCount(scanned) * PAGE_SIZE;
        if (mask === 0) {
          await zeros.leaf(leaf, 2 ** this.#pagesOf(leaf) - 1, 0);
          this.manifest.set(leaf, 0, NO_DIGEST);
          continue;
        }
        const pages = batch.pack(at, keep);
        const digest = digestOf(pages);
        if (this.manifest.matches(leaf, mask, digest)) continue;
        const before = this.#hintsOf(leaf);
        const hints = before === undefined && isLast ? undefined : pageHints(pages);
        if (before === undefined || hints === undefined) {
          batch.add(leaf, mask, mask, pages.length, digest);
        } else {
          const { sent, keep: differing } = differingPages(mask, hints, before);
          batch.add(leaf, mask, sent, batch.pack(batch.filled, differing).length, digest);
        }
        this.manifest.set(leaf, mask, digest);
        if (hints !== undefined) this.#setHints(leaf, hints);
      }
      if (batch.room === 0) {
        batch = await nextBatch(batch, to);
      }
    }
    if (batch.count > 0) await sendBatch(batch, to);
    else pool.give(batch);
    await zeros.finish();
  }

  /** Leaves that were sent, and of which no page may hold anything any more. */
  #sentOutside(scan: ExtentSet): ExtentSet {
    const outside = ExtentSet.builder();
    for (const { leaf } of this.manifest) {
      const [start, end] = this.#extent(leaf);
      const run = scan.indexAfter(start);
      if (run === scan.count || scan.start(run) >= end) outside.add(start, end);
    }
    return outside.build();
  }

  #hintsOf(leaf: number): { mask: number; hints: Buffer } | undefined {
    const mask = this.manifest.mask(leaf);
    const slab = this.#hints.get(Math.floor(leaf / SLAB_LEAVES));
    const slot = leaf % SLAB_LEAVES;
    if (mask === 0 || slab?.known[slot] !== 1) return undefined;
    return { mask, hints: slab.bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES) };
  }

  /** @param hints of the pages in the leaf's mask */
  #setHints(leaf: number, hints: Buffer): void {
    const index = Math.floor(leaf / SLAB_LEAVES);
    let slab = this.#hints.get(index);
    if (slab === undefined) {
      slab = { known: new Uint8Array(SLAB_LEAVES), bytes: Buffer.alloc(SLAB_LEAVES * SLOT_BYTES) };
      this.#hints.set(index, slab);
    }
    const slot = leaf % SLAB_LEAVES;
    slab.bytes.set(hints, slot * SLOT_BYTES);
    slab.known[slot] = 1;
  }

  #pagesOf(leaf: number): number {
    return Math.min(LEAF_PAGES, this.#source.bytes / PAGE_SIZE - leaf * LEAF_PAGES);
  }

  #extent(leaf: number): [number, number] {
    return [leaf * LEAF_SIZE, Math.min((leaf + 1) * LEAF_SIZE, this.#source.bytes)];
  }
}

const NO_DIGEST = Buffer.alloc(0);

function* leavesIn(extents: ExtentSet): Generator<number> {
  for (const { start, end } of extents) for (let leaf = start / LEAF_SIZE; leaf < leafCount(end); leaf++) yield leaf;
}
