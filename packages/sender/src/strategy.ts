import { Dialect } from '@ballast/shared/protocol';
import { ExtentSet } from '@ballast/shared/memory';
import type { BalloonMap } from './balloon/balloon-map.js';
import type { MemorySource } from './source/memory-source.js';

/** How the sender learns that a page need not be sent. */
export const Identify = {
  /** Reads every page and looks for zeros. Knows no balloon, and so sends the stale bytes under it, as QEMU would. */
  scan: 'scan',
  /** Asks the balloon map, and scans only what it does not take out. */
  ask: 'ask',
} as const;
export type Identify = (typeof Identify)[keyof typeof Identify];

/** A strategy is a point in the plane of two independent questions: how to identify, and how to announce. */
export interface Strategy {
  readonly identify: Identify;
  readonly announce: Dialect;
}

/** The four systems of the mail that this project grew from, by the names users give to `--strategy`. */
export const STRATEGIES = {
  /** v1, unmodified QEMU. */
  unmodified: { identify: Identify.scan, announce: Dialect.whiteouts },
  /** v3, only is_zero_range() consults the map: the stream is what a receiver of `unmodified` knows. */
  consult: { identify: Identify.ask, announce: Dialect.whiteouts },
  /** v2, the proposed patch: the map travels once, and ballooned pages cost nothing after it. */
  skip: { identify: Identify.ask, announce: Dialect.map },
  /** The reply's "and vice versa": pages found by scanning are announced as ranges, too. */
  bitmap: { identify: Identify.ask, announce: Dialect.ranges },
} as const satisfies Record<string, Strategy>;

export type StrategyName = keyof typeof STRATEGIES;
export const STRATEGY_NAMES = Object.keys(STRATEGIES) as readonly StrategyName[];
export const DEFAULT_STRATEGY: StrategyName = 'bitmap';

/** What is to be done with a region: read and scan these bytes, know those to be free. Together they are the region. */
export interface RegionPlan {
  readonly scan: ExtentSet;
  readonly free: ExtentSet;
}

/** Answers the first question for each region, before a byte of memory is read. */
export function identifyPages(identify: Identify, source: MemorySource, balloon: BalloonMap): RegionPlan[] {
  return source.regions.map((region, index) => {
    const free = identify === Identify.ask ? (balloon.free[index] ?? ExtentSet.empty) : ExtentSet.empty;
    return { free, scan: free.complement(region.bytes) };
  });
}
