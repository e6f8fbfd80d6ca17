import { DIGEST_SIZE, HINT_SIZE, digestOf, pageHints } from '@ballast/shared/integrity';
import { ExtentSet, LEAF_PAGES, LEAF_SIZE, alignedBuffer } from '@ballast/shared/memory';
import { LeafReader } from '../leaf-reader.js';
import { packPages } from '../page-packing.js';
import { positionalReads } from '../source/positional-reads.js';

/** Leaves of a window, the piece of work that a thread takes: 1 MiB. */
export const WINDOW_LEAVES = 16;

/** One pass over memory, as the threads share it. */
export interface LeafWork {
  readonly regions: readonly { readonly fd: number; readonly path: string }[];
  /** Float64: for each window its region, its first leaf, and the index of its first run. */
  readonly windows: SharedArrayBuffer;
  /** Float64: start and end in bytes of each run of pages to read, window after window. */
  readonly runs: SharedArrayBuffer;
  /** Int32: the next window that nobody has taken. */
  readonly cursor: SharedArrayBuffer;
  /** For each leaf of each window: Uint16 mask; 32 bytes of digest; 128 bytes of hints of the pages in the mask. */
  readonly masks: SharedArrayBuffer;
  readonly digests: SharedArrayBuffer;
  readonly hints: SharedArrayBuffer | undefined;
}

/**
 * One thread's part of a pass: takes windows of memory from the common cursor until there is none left, reads their
 * pages and writes what their leaves are to the shared arrays. A descriptor belongs to the process, so that every thread
 * can read from it.
 */
export class WindowDigests {
  readonly #memory = alignedBuffer(WINDOW_LEAVES * LEAF_SIZE);
  #bytes = 0;
  #busyMs = 0;
  #hintMs = 0;

  /** Bytes read and hashed so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Milliseconds that this has taken, hints left out. */
  get busyMs(): number {
    return this.#busyMs - this.#hintMs;
  }

  /** Milliseconds that page hints have taken so far. */
  get hintMs(): number {
    return this.#hintMs;
  }

  /**
   * @param until the moment of performance.now() after which no other window is taken
   * @returns whether there is none left
   * @throws BallastError SOURCE_CHANGED, READ; then the others of this pass take no more windows either
   */
  work(work: LeafWork, until = Infinity): boolean {
    const cursor = new Int32Array(work.cursor);
    const table = new Float64Array(work.windows);
    const count = table.length / 3;
    let began = performance.now();
    try {
      while (began < until) {
        const index = Atomics.add(cursor, 0, 1);
        if (index >= count) return true;
        this.#digest(work, table.subarray(3 * index, 3 * index + 6), index);
        const now = performance.now();
        this.#busyMs += now - began;
        began = now;
      }
    } catch (error) {
      Atomics.store(cursor, 0, count);
      throw error;
    }
    return false;
  }

  /** @param row of the table of windows, and the row after it where there is one */
  #digest(work: LeafWork, [region = 0, firstLeaf = 0, firstRun = 0, , , runsEnd]: Float64Array, window: number): void {
    const source = work.regions[region];
    if (source === undefined) throw new RangeError(`there is no region ${region}`);
    const masks = new Uint16Array(work.masks);
    const digests = new Uint8Array(work.digests);
    const hints = work.hints === undefined ? undefined : new Uint8Array(work.hints);
    const bounds = new Float64Array(work.runs);
    const scan = ExtentSet.ofBounds(bounds.subarray(2 * firstRun, runsEnd === undefined ? undefined : 2 * runsEnd));
    this.#bytes += scan.bytes;
    const reader = new LeafReader(positionalReads(source.fd, source.path), scan);
    while (!reader.done) {
      for (const { leaf, mask, at, keep } of reader.readStretch(this.#memory, 0, WINDOW_LEAVES)) {
        const slot = window * WINDOW_LEAVES + leaf - firstLeaf;
        masks[slot] = mask;
        if (mask === 0) continue;
        const pages = packPages(this.#memory, at, at, keep);
        digests.set(digestOf(pages), slot * DIGEST_SIZE);
        if (hints === undefined) continue;
        const began = performance.now();
        hints.set(pageHints(pages), slot * LEAF_PAGES * HINT_SIZE);
        this.#hintMs += performance.now() - began;
      }
    }
  }
}
