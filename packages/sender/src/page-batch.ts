import { LEAF_RECORD_SIZE, LeafTable, MAX_BATCH_BYTES, MAX_BATCH_LEAVES } from '@ballast/shared/protocol';
import { LEAF_SIZE, alignedBuffer } from '@ballast/shared/memory';
import type { Connection } from '@ballast/shared/transport';
import type { LeafCompression } from './compression/leaf-compression.js';
import { packPages } from './page-packing.js';

/**
 * One leaves frame in the making: page bytes packed without gaps, and the table that says where they belong. Leaves may
 * be compressed where they lie; how many pages there is room for does not depend on that.
 *
 *      memory   | packed pages of leaves added so far | raw pages just read, not yet classified | room |
 *               0                                 filled                                     MAX_BATCH_BYTES
 *
 * Pages are read behind `filled` and moved down over those that turned out to be zeros, so that what was read once is
 * what is hashed and what is sent, and most of it is never moved.
 */
export class PageBatch {
  readonly memory = alignedBuffer(MAX_BATCH_BYTES);
  #table = new LeafTable(MAX_BATCH_LEAVES);
  #filled = 0;
  #pageBytes = 0;
  #count = 0;
  #base = 0;
  readonly #limit: number;
  readonly #compression: LeafCompression | undefined;

  /**
   * @param limit bytes of pages after which it counts as full: a leaf at least, MAX_BATCH_BYTES at most
   * @param compression undefined where leaves stay as they are
   */
  constructor(limit = MAX_BATCH_BYTES, compression?: LeafCompression) {
    this.#limit = limit;
    this.#compression = compression;
  }

  /** Bytes of the pages added, before they were compressed. */
  get pageBytes(): number {
    return this.#pageBytes;
  }

  /** Bytes of packed pages, as they are to be sent. */
  get filled(): number {
    return this.#filled;
  }

  /** Leaves added. */
  get count(): number {
    return this.#count;
  }

  /** Index of the first leaf, from which the table counts. */
  get base(): number {
    return this.#base;
  }

  /** Leaves that surely fit, however many pages each has. */
  get room(): number {
    return Math.min(Math.floor((this.#limit - this.#pageBytes) / LEAF_SIZE), MAX_BATCH_LEAVES - this.#count);
  }

  /**
   * Moves those of the raw pages at `at` that `keep` names down to the end of the packed pages, and returns them as one
   * run of bytes. They are not part of the frame until `add`.
   * @param keep bit n stands for the n-th page at `at`
   */
  pack(at: number, keep: number): Buffer {
    return packPages(this.memory, this.#filled, at, keep);
  }

  /** As `pack`, but leaves the pages where they begin: for reading without sending. */
  packAt(at: number, keep: number): Buffer {
    return packPages(this.memory, at, at, keep);
  }

  /**
   * Adds a leaf whose pages lie at the end of the packed ones.
   * @param mask pages of the leaf that are not zero
   * @param sent those of them whose bytes were packed
   */
  add(leaf: number, mask: number, sent: number, sentBytes: number, digest: Uint8Array): void {
    if (this.#count === 0) this.#base = leaf;
    let [stored, codec] = [sentBytes, 0];
    if (this.#compression !== undefined && sentBytes > 0)
      ({ stored, codec } = this.#compression.shrink(this.memory.subarray(this.#filled, this.#filled + sentBytes)));
    this.#table.write(this.#count, leaf - this.#base, mask, sent, stored, digest, codec);
    this.#filled += stored;
    this.#pageBytes += sentBytes;
    this.#count++;
  }

  /** The frame's payload: views, valid until `clear`. */
  payload(): { table: Buffer; pages: Buffer } {
    return {
      table: this.#table.bytes.subarray(0, this.#count * LEAF_RECORD_SIZE),
      pages: this.memory.subarray(0, this.#filled),
    };
  }

  clear(): void {
    this.#filled = 0;
    this.#pageBytes = 0;
    this.#count = 0;
  }
}

/** In use at once: what the socket holds, of compressed ones several, and one being filled. */
const MOST_BATCHES = 4;

/** A fixed number of batches that go round: filled, handed to the socket, and filled again when the kernel has taken them. */
export class BatchPool {
  #free: PageBatch[] = [];
  #unmade = MOST_BATCHES;
  readonly #limit: number;
  readonly compression: LeafCompression | undefined;

  /**
   * @param limit bytes of pages after which a batch counts as full
   * @param compression of the leaves in all of them
   */
  constructor(limit: number, compression: LeafCompression | undefined) {
    this.#limit = limit;
    this.compression = compression;
  }

  /**
   * An empty batch, as soon as there is one.
   * @throws the failure of the connection that the batches in use wait for
   */
  async take(connection: Connection): Promise<PageBatch> {
    for (;;) {
      const batch = this.#free.pop();
      if (batch !== undefined) return batch;
      if (this.#unmade > 0) {
        this.#unmade--;
        return new PageBatch(this.#limit, this.compression);
      }
      await connection.flushed();
    }
  }

  give(batch: PageBatch): void {
    batch.clear();
    this.#free.push(batch);
  }
}

/** Seconds that a frame takes at most where the bandwidth is capped: what is urgent, such as an abort, waits for it. */
const SECONDS_PER_BATCH = 0.1;

/** Bytes of pages that one frame carries at most, in whole leaves. */
export function batchLimit(bytesPerSecond: number): number {
  const leaves = Math.floor((bytesPerSecond * SECONDS_PER_BATCH) / LEAF_SIZE);
  return Math.min(Math.max(leaves, 1) * LEAF_SIZE, MAX_BATCH_BYTES);
}
