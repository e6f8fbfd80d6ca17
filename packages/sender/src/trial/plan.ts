import type { CompressionChoice } from '../compression/choice.js';
import type { StrategyName } from '../strategy.js';

/** One combination that is measured; a cell of the result. */
export interface Cell {
  readonly strategy: StrategyName;
  /** Bytes a second that the sender allows itself; undefined for no limit. */
  readonly bandwidth: number | undefined;
  /** Connections that carry pages; undefined to let the sender choose. */
  readonly channels: number | undefined;
  readonly compress: CompressionChoice;
}

/** What is varied. Every value of one is combined with every value of the others. */
export interface Variation {
  readonly strategies: readonly StrategyName[];
  readonly bandwidths: readonly (number | undefined)[];
  readonly channels: readonly (number | undefined)[];
  readonly compress: readonly CompressionChoice[];
}

/** A run that is to be made: which cell, and in which round. Round 0 warms up and is not counted. */
export interface PlannedRun {
  readonly cell: number;
  readonly round: number;
}

/** What is named twice is one value: its combinations take no more runs than any other. */
export function cellsOf({ strategies, bandwidths, channels, compress }: Variation): Cell[] {
  return each(bandwidths).flatMap((bandwidth) =>
    each(channels).flatMap((count) =>
      each(compress).flatMap((how) =>
        each(strategies).map((strategy) => ({ strategy, bandwidth, channels: count, compress: how })),
      ),
    ),
  );
}

function each<Value>(values: readonly Value[]): Value[] {
  return [...new Set(values)];
}

/**
 * Every cell once a round, in an order that is shuffled anew each round: what drifts on the machine or the link hits all
 * cells alike, and none always runs after the same other.
 * @param rounds that count; one more comes before them
 */
export function planRuns(cells: number, rounds: number, seed: number): PlannedRun[] {
  const random = randomFrom(seed);
  return Array.from({ length: rounds + 1 }, (_, round) =>
    shuffled(cells, random).map((cell): PlannedRun => ({ cell, round })),
  ).flat();
}

/** Fisher and Yates. */
function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const moved = order[last] ?? 0;
    order[last] = order[other] ?? 0;
    order[other] = moved;
  }
  return order;
}

/** Mulberry32: a small generator whose whole sequence follows from its seed, which Math.random's does not. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
