import { setImmediate } from 'node:timers/promises';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { RegionManifest, digestOf, nonZeroMask, pageHints } from '@ballast/shared/integrity';
import { LEAF_PAGES, LEAF_SIZE, PAGE_SIZE, alignedBuffer, leafCount, popCount } from '@ballast/shared/memory';
import { FrameType, HoldingsEncoder } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';
import type { ReadableRegion, RegionStore } from './destination/region-store.js';
import type { OldCopy } from './old-copy.js';

/** Milliseconds of hashing after which frames that came meanwhile get their turn. */
const MAX_BUSY_MS = 10;
/** Leaves told at once at most, so that the sender can begin early. */
const TELL_LEAVES = 128;

/**
 * What one region can be made from without the wire: what an earlier try left in its store, and, where that has
 * nothing, an older copy. Nothing is taken from a journal: all of it is read and hashed before it counts.
 */
export class Basis {
  readonly #store: RegionStore;
  readonly #old: OldCopy | undefined;
  /** Leaves found in the store. */
  readonly #here: RegionManifest;
  /** Leaves found in the older copy, where the store has nothing. */
  readonly #there: RegionManifest;
  readonly #onOldFailed: (error: BallastError) => void;
  /** Whether a read of the older copy failed: then no more is looked for in it. */
  #oldFailed = false;
  #leaf = alignedBuffer(LEAF_SIZE);

  /** @param onOldFailed is called once when the older copy cannot be read: that costs its use, never the transfer */
  constructor(store: RegionStore, old: OldCopy | undefined, onOldFailed: (error: BallastError) => void) {
    this.#store = store;
    this.#old = old;
    this.#onOldFailed = onOldFailed;
    this.#here = new RegionManifest(store.bytes);
    this.#there = new RegionManifest(store.bytes);
  }

  /** Size of the region in bytes. */
  get bytes(): number {
    return this.#store.bytes;
  }

  /**
   * Reads and hashes what there is of the leaves from `first` up to, and without, `end`, and tells the sender as it goes.
   * Runs beside the frames that come in answer: the sender speaks of a leaf only after it was told about it.
   * @throws BallastError READ, or the connection's failure
   */
  async tell(connection: Connection, region: number, first = 0, end = leafCount(this.#store.bytes)): Promise<void> {
    const encoder = new HoldingsEncoder();
    const flush = async (): Promise<void> => {
      if (encoder.count === 0) return;
      const { count, base } = encoder;
      await connection.send({ type: FrameType.holdings, region, count, base, checked: encoder.take() });
    };
    let pausedAt = performance.now();
    for (let leaf = this.#nextLeaf(first); leaf !== undefined && leaf < end; leaf = this.#nextLeaf(leaf + 1)) {
      const held =
        this.#hash(leaf, this.#store, this.#here) ?? this.#ofOld((old) => this.#hash(leaf, old, this.#there));
      if (held !== undefined) encoder.add({ leaf, ...held });
      if (!encoder.hasRoom || encoder.count >= TELL_LEAVES) await flush();
      if (performance.now() - pausedAt > MAX_BUSY_MS) {
        await setImmediate();
        if (connection.failure !== undefined) throw connection.failure;
        pausedAt = performance.now();
      }
    }
    await flush();
    await connection.send({ type: FrameType.holdings, region, count: 0, base: end, checked: Buffer.alloc(0) });
  }

  /** Whether the store was found to hold exactly this leaf: hashed on this connection, so there is no need to look again. */
  isInStore(leaf: number, mask: number, digest: Uint8Array): boolean {
    return this.#here.matches(leaf, mask, digest);
  }

  /**
   * Puts pages that the sender left out where they belong. Those of the store are there already. What cannot be read of
   * the older copy any more is missing then, and the leaf's digest tells.
   * @param pages of the leaf: bit n is page n
   * @throws BallastError PROTOCOL when nothing here holds them; WRITE, NO_SPACE
   */
  fill(leaf: number, pages: number): void {
    if ((pages & ~this.#here.mask(leaf)) === 0) return;
    const old = this.#old;
    if (old === undefined || (pages & ~this.#there.mask(leaf)) !== 0) {
      throw new BallastError(ErrorCode.PROTOCOL, `the sender left out pages of leaf ${leaf} that nothing here holds`);
    }
    for (let page = 0; page < LEAF_PAGES; page++) {
      if ((pages & (1 << page)) === 0) continue;
      const first = page;
      while (page + 1 < LEAF_PAGES && (pages & (1 << (page + 1))) !== 0) page++;
      this.#orOldFails(() => {
        this.#store.copyFrom(old, leaf * LEAF_SIZE + first * PAGE_SIZE, (page + 1 - first) * PAGE_SIZE);
      });
    }
  }

  /** The first leaf from `leaf` on for which the store or the older copy has data; undefined when there is none. */
  #nextLeaf(leaf: number): number | undefined {
    const from = leaf * LEAF_SIZE;
    const starts = [this.#store.nextDataStart(from), this.#ofOld((old) => old.nextDataStart(from))].filter(
      (start) => start !== undefined,
    );
    if (starts.length === 0) return undefined;
    const next = Math.max(leaf, Math.floor(Math.min(...starts) / LEAF_SIZE));
    return next < leafCount(this.#store.bytes) ? next : undefined;
  }

  #ofOld<T>(look: (old: OldCopy) => T): T | undefined {
    const old = this.#oldFailed ? undefined : this.#old;
    return old && this.#orOldFails(() => look(old));
  }

  /** @param work that reads nothing but the older copy */
  #orOldFails<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof BallastError) || error.code !== ErrorCode.READ) throw error;
      if (!this.#oldFailed) this.#onOldFailed(error);
      this.#oldFailed = true;
      return undefined;
    }
  }

  #hash(
    leaf: number,
    region: ReadableRegion,
    found: RegionManifest,
  ): { mask: number; digest: Buffer; hints: Buffer } | undefined {
    const offset = leaf * LEAF_SIZE;
    const length = Math.min(LEAF_SIZE, region.bytes - offset, this.#store.bytes - offset);
    if (length <= 0) return undefined;
    const bytes = this.#leaf.subarray(0, length);
    region.read(offset, bytes);
    const mask = nonZeroMask(bytes, 0, length / PAGE_SIZE);
    if (mask === 0) return undefined;
    const pages = packPages(bytes, mask);
    const digest = digestOf(pages);
    found.set(leaf, mask, digest);
    return { mask, digest, hints: pageHints(pages) };
  }
}

/** Moves the pages in `mask` to the front of `bytes`, without gaps, and returns them. */
export function packPages(bytes: Buffer, mask: number): Buffer {
  let end = 0;
  for (let page = 0; page < LEAF_PAGES; page++) {
    if ((mask & (1 << page)) === 0) continue;
    if (end !== page * PAGE_SIZE) bytes.copyWithin(end, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    end += PAGE_SIZE;
  }
  return bytes.subarray(0, popCount(mask) * PAGE_SIZE);
}
