import { Worker } from 'node:worker_threads';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { DIGEST_SIZE, HINT_SIZE } from '@ballast/shared/integrity';
import { LEAF_PAGES, LEAF_SIZE, popCount, type ExtentSet } from '@ballast/shared/memory';
import type { MemorySource } from '../source/memory-source.js';

/** Leaves of a window, the piece of work that a thread takes: 1 MiB. */
export const WINDOW_LEAVES = 16;
const WINDOW_BYTES = WINDOW_LEAVES * LEAF_SIZE;

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

export type WorkerAnswer =
  | { readonly hintMs: number; readonly error?: undefined }
  | { readonly error: { readonly code: string; readonly message: string }; readonly hintMs?: undefined };

/** What a leaf is now. Views, valid until the next pass. */
export interface LeafNow {
  readonly leaf: number;
  /** Pages that are not zero; may be 0. */
  readonly mask: number;
  readonly digest: Buffer;
  /** XXH3-64 of each page in mask; undefined where they were not asked for. */
  readonly hints: Buffer | undefined;
}

/** The result of a pass. */
export interface LeafPass {
  /** Seconds that the pass took, hints left out: what it will take when the guest stands still. */
  readonly seconds: number;
  /** Every leaf that was read of a region, ascending. */
  leavesOf(region: number): Iterable<LeafNow>;
}

/**
 * Finds out what memory is, with several threads: BLAKE3 of each leaf, as the manifest has it. A digest a leaf is
 * compared faster than hints a page (7.0 against 4.5 GB/s), and says for sure what changed.
 */
export class LeafDigester {
  readonly #source: MemorySource;
  readonly #workers: readonly Worker[];
  #failure: BallastError | undefined;

  /** @param threads at least 1 */
  constructor(source: MemorySource, threads: number) {
    this.#source = source;
    this.#workers = Array.from({ length: threads }, () => new Worker(new URL('./leaf-worker.js', import.meta.url)));
    for (const worker of this.#workers) {
      // A move that waits for something else is not kept alive by its idle threads.
      worker.unref();
      worker.on('error', (error) => {
        this.#failure ??= BallastError.from(error);
      });
    }
  }

  /**
   * Reads and hashes the pages of `scans`.
   * @param scans for each region, whole pages
   * @throws BallastError SOURCE_CHANGED, READ
   */
  async digest(scans: readonly ExtentSet[], withHints: boolean): Promise<LeafPass> {
    const began = performance.now();
    const { windows, runs, firstWindows } = plan(scans);
    const leaves = (windows.length / 3) * WINDOW_LEAVES;
    const work: LeafWork = {
      regions: this.#source.regions.map(({ fd, path }) => ({ fd, path })),
      windows: shared(windows),
      runs: shared(runs),
      cursor: new SharedArrayBuffer(4),
      masks: new SharedArrayBuffer(leaves * 2),
      digests: new SharedArrayBuffer(leaves * DIGEST_SIZE),
      hints: withHints ? new SharedArrayBuffer(leaves * LEAF_PAGES * HINT_SIZE) : undefined,
    };
    const answers = await Promise.all(this.#workers.map(async (worker) => this.#ask(worker, work)));
    const hintMs = answers.reduce((sum, ms) => sum + ms, 0) / this.#workers.length;
    for (const region of this.#source.regions) region.checkSize();

    const masks = new Uint16Array(work.masks);
    const digests = Buffer.from(work.digests);
    const hints = work.hints === undefined ? undefined : Buffer.from(work.hints);
    return {
      seconds: (performance.now() - began - hintMs) / 1000,
      *leavesOf(region) {
        const last = firstWindows[region + 1] ?? windows.length / 3;
        for (let window = firstWindows[region] ?? last; window < last; window++) {
          const firstLeaf = windows[3 * window + 1] ?? 0;
          const firstRun = windows[3 * window + 2] ?? 0;
          const lastRun = windows[3 * window + 5] ?? runs.length / 2;
          let next = 0;
          for (let run = firstRun; run < lastRun; run++) {
            const from = Math.max(next, Math.floor((runs[2 * run] ?? 0) / LEAF_SIZE) - firstLeaf);
            next = Math.ceil((runs[2 * run + 1] ?? 0) / LEAF_SIZE) - firstLeaf;
            for (let index = from; index < next; index++) {
              const slot = window * WINDOW_LEAVES + index;
              const mask = masks[slot] ?? 0;
              const hintsAt = slot * LEAF_PAGES * HINT_SIZE;
              yield {
                leaf: firstLeaf + index,
                mask,
                digest: digests.subarray(slot * DIGEST_SIZE, (slot + 1) * DIGEST_SIZE),
                hints: hints?.subarray(hintsAt, hintsAt + popCount(mask) * HINT_SIZE),
              };
            }
          }
        }
      },
    };
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map(async (worker) => worker.terminate()));
  }

  async #ask(worker: Worker, work: LeafWork): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure;
    worker.ref();
    try {
      const answer = await new Promise<WorkerAnswer>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('exit', () => {
          reject(this.#failure ?? new BallastError(ErrorCode.INTERNAL, 'a thread that reads memory has ended'));
        });
        worker.postMessage(work);
      });
      if (answer.error === undefined) return answer.hintMs;
      throw new BallastError(
        Object.values(ErrorCode).find((code) => code === answer.error.code) ?? ErrorCode.INTERNAL,
        answer.error.message,
      );
    } finally {
      worker.removeAllListeners('exit');
      worker.unref();
    }
  }
}

/** Cuts the runs to read at the bounds of windows, so that no leaf belongs to two of them. */
function plan(scans: readonly ExtentSet[]): { windows: Float64Array; runs: Float64Array; firstWindows: number[] } {
  const windows: number[] = [];
  const runs: number[] = [];
  const firstWindows: number[] = [];
  for (const [region, scan] of scans.entries()) {
    firstWindows.push(windows.length / 3);
    let current = -1;
    for (const { start, end } of scan) {
      for (let at = start; at < end;) {
        const window = Math.floor(at / WINDOW_BYTES);
        const stop = Math.min(end, (window + 1) * WINDOW_BYTES);
        if (window !== current) windows.push(region, window * WINDOW_LEAVES, runs.length / 2);
        current = window;
        runs.push(at, stop);
        at = stop;
      }
    }
  }
  return { windows: Float64Array.from(windows), runs: Float64Array.from(runs), firstWindows };
}

function shared(numbers: Float64Array): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(numbers.byteLength);
  new Float64Array(buffer).set(numbers);
  return buffer;
}
