import { ExtentSet, LEAF_SIZE, PAGE_SIZE, leafCount } from '@ballast/shared/memory';
import type { LeafSpan } from '../holdings-reader.js';
import type { RegionPlan } from '../strategy.js';

/** Bytes to scan of one stretch: many system calls and frames, and few enough that all channels end at about the same time. */
const STRETCH_BYTES = 8 << 20;

/** What one channel claims at a time: leaves of one region, and what is to be scanned of them. */
export interface Stretch extends LeafSpan {
  /** The part of the region's bytes to scan. */
  readonly scan: ExtentSet;
}

/** As numbers, which threads can hand to each other. */
export interface SharedStretches {
  /** region, first leaf, leaf after the last; for each stretch. */
  readonly bounds: Float64Array;
  /** What is to be scanned of each region, as `ExtentSet.bounds`. */
  readonly scans: readonly Float64Array[];
  /** Size of each region in bytes. */
  readonly regionBytes: readonly number[];
}

/**
 * All leaves of all regions in stretches of about equal work, by ascending address: each leaf is in exactly one. Cut by
 * bytes to scan and not by addresses, so that a guest of which little is resident makes few.
 *
 *     region   |..####.......#..|.......####|...........|      # to scan   . free
 *              |    stretch 0   | stretch 1 |           |      the rest belongs to the last one
 */
export class Stretches {
  readonly #bounds: Float64Array;
  readonly #scans: readonly ExtentSet[];
  readonly #regionBytes: readonly number[];

  private constructor({ bounds, scans, regionBytes }: SharedStretches) {
    this.#bounds = bounds;
    this.#scans = scans.map((scan) => ExtentSet.ofBounds(scan));
    this.#regionBytes = regionBytes;
  }

  /** @param regionBytes size of each region in bytes */
  static cut(plans: readonly RegionPlan[], regionBytes: readonly number[]): Stretches {
    const bounds: number[] = [];
    for (const [region, { scan }] of plans.entries()) {
      let first = 0;
      let bytes = 0;
      let previousEnd = 0;
      for (const { start, end } of scan) {
        for (let at = start; at < end; at = previousEnd) {
          const leaf = Math.floor(at / LEAF_SIZE);
          if (bytes >= STRETCH_BYTES && leaf * LEAF_SIZE >= previousEnd) {
            bounds.push(region, first, leaf);
            first = leaf;
            bytes = 0;
          }
          // A run longer than a stretch is cut at a leaf.
          const room = Math.max(STRETCH_BYTES - bytes, LEAF_SIZE);
          previousEnd = Math.min(end, Math.max(leaf + 1, Math.floor((at + room) / LEAF_SIZE)) * LEAF_SIZE);
          bytes += previousEnd - at;
        }
      }
      bounds.push(region, first, leafCount(regionBytes[region] ?? 0));
    }
    return new Stretches({
      bounds: Float64Array.from(bounds),
      scans: plans.map(({ scan }) => scan.bounds),
      regionBytes,
    });
  }

  /** What another thread has cut. */
  static of(shared: SharedStretches): Stretches {
    return new Stretches(shared);
  }

  /** For another thread. */
  get shared(): SharedStretches {
    return { bounds: this.#bounds, scans: this.#scans.map((scan) => scan.bounds), regionBytes: this.#regionBytes };
  }

  get count(): number {
    return this.#bounds.length / 3;
  }

  /** Stretch `index`; undefined beyond the last. */
  at(index: number): Stretch | undefined {
    const [region, first, end] = this.#bounds.subarray(3 * index, 3 * index + 3);
    if (region === undefined || first === undefined || end === undefined) return undefined;
    const scan = (this.#scans[region] ?? ExtentSet.empty).slice(first * LEAF_SIZE, end * LEAF_SIZE);
    return { region, regionBytes: this.#regionBytes[region] ?? 0, first, end, scan };
  }
}

/** First page of a stretch, and the page after its last. */
export function pagesOf({ region, first, end, regionBytes }: LeafSpan): { region: number; first: number; end: number } {
  const perLeaf = LEAF_SIZE / PAGE_SIZE;
  return { region, first: first * perLeaf, end: Math.min(end * perLeaf, regionBytes / PAGE_SIZE) };
}
