/** The middle of the values; the mean of the two middle ones where their number is even. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** Values as a reader wants them: the middle and how far they spread. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

export function spread(values: readonly number[]): Spread {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

/**
 * How many times as large the first values are as the second, pair by pair: what ran side by side is compared, so that a
 * slow minute of the machine is in both halves of a ratio.
 */
export function pairedRatio(first: readonly number[], second: readonly number[]): Spread {
  const pairs = Math.min(first.length, second.length);
  return spread(Array.from({ length: pairs }, (_, index) => (first[index] ?? NaN) / (second[index] ?? NaN)));
}
