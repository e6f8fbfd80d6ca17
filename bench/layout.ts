import { Random } from './random.js';

/** The page of every file made here; the balloon works in this unit on every guest. */
export const PAGE = 4096;

/** What a run of pages holds: bytes, resident zeros, or nothing since the balloon took it. */
export type RunKind = 'data' | 'zero' | 'balloon';

/** Consecutive pages. */
export interface PageRange {
  readonly start: number;
  readonly length: number;
}

/** Consecutive pages of one kind. */
export interface Run extends PageRange {
  readonly kind: RunKind;
}

/** How the pages with data lie: in runs of 4 KiB to 2 MiB, each alone, or all in one run. */
export type Spread = 'scattered' | 'isolated' | 'long';

/** What the memory of the guest is made of, in bytes; what is left over was never touched. */
export interface LayoutOptions {
  readonly size: number;
  readonly data: number;
  readonly spread?: Spread;
  readonly zero?: number;
  readonly balloon?: number;
  /** Bytes that the file still holds under the balloon, as after MADV_DONTNEED. */
  readonly stale?: number;
  readonly seed: number;
}

/** Where everything lies in the memory of a guest. */
export interface Layout {
  readonly pages: number;
  /** In ascending order, and never overlapping. */
  readonly runs: readonly Run[];
  /** Inside the runs of the balloon, in ascending order. */
  readonly stale: readonly PageRange[];
}

/** The longest run of each kind, in pages. A balloon grows by what the guest's allocator gives: long stretches. */
const LONGEST_DATA = 512;
const LONGEST_ZERO = 64;
const LONGEST_BALLOON = 8192;

/** Lays out a guest's memory; the same options give the same layout. */
export function layOut(options: LayoutOptions): Layout {
  const { size, data, spread = 'scattered', zero = 0, balloon = 0, stale = 0, seed } = options;
  const pages = inPages(size, 'size');
  const random = new Random(seed);
  const pieces = [
    ...pieceLengths(inPages(data, 'data'), spread, LONGEST_DATA, random).map((length) => piece('data', length)),
    ...pieceLengths(inPages(zero, 'zero'), 'scattered', LONGEST_ZERO, random).map((length) => piece('zero', length)),
    ...pieceLengths(inPages(balloon, 'balloon'), 'scattered', LONGEST_BALLOON, random).map((length) =>
      piece('balloon', length),
    ),
  ];
  random.shuffle(pieces);
  const runs = place(pieces, pages, random);
  return { pages, runs, stale: placeStale(runs, inPages(stale, 'stale'), inPages(balloon, 'balloon'), random) };
}

function inPages(bytes: number, what: string): number {
  if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes % PAGE !== 0) {
    throw new RangeError(`${what} is ${bytes} bytes; expected whole pages of ${PAGE} bytes`);
  }
  return bytes / PAGE;
}

function piece(kind: RunKind, length: number): { kind: RunKind; length: number } {
  return { kind, length };
}

/** Cuts a number of pages into pieces. Scattered lengths are uniform in their logarithm: most are short, most pages are in long ones. */
function pieceLengths(pages: number, spread: Spread, longest: number, random: Random): number[] {
  if (pages === 0) return [];
  if (spread === 'long') return [pages];
  if (spread === 'isolated') return new Array<number>(pages).fill(1);
  const lengths: number[] = [];
  for (let left = pages; left > 0;) {
    const length = Math.min(left, Math.max(1, Math.round(longest ** random.unit())));
    lengths.push(length);
    left -= length;
  }
  return lengths;
}

/** Gives each piece its place, with gaps of random length between; a gap has at least one page where there are enough. */
function place(pieces: readonly { kind: RunKind; length: number }[], pages: number, random: Random): Run[] {
  const used = pieces.reduce((sum, { length }) => sum + length, 0);
  const untouched = pages - used;
  if (untouched < 0) throw new RangeError(`${used} pages of content do not fit in a memory of ${pages} pages`);
  const smallestGap = untouched >= pieces.length ? 1 : 0;
  const spare = untouched - smallestGap * pieces.length;
  // Exponential weights make the gaps those of pieces thrown in at random.
  const weights = Array.from({ length: pieces.length + 1 }, () => -Math.log(1 - random.unit()));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const runs: Run[] = [];
  let weightBefore = 0;
  let lengthBefore = 0;
  pieces.forEach(({ kind, length }, index) => {
    weightBefore += weights[index] ?? 0;
    const gaps = Math.floor((weightBefore / total) * spare) + smallestGap * index;
    runs.push({ kind, start: gaps + lengthBefore, length });
    lengthBefore += length;
  });
  return runs;
}

/** Spreads the stale pages over all runs of the balloon, in proportion to their length. */
function placeStale(runs: readonly Run[], stale: number, balloon: number, random: Random): PageRange[] {
  if (stale > balloon) throw new RangeError(`${stale} stale pages do not fit under a balloon of ${balloon} pages`);
  const ranges: PageRange[] = [];
  let staleLeft = stale;
  let balloonLeft = balloon;
  for (const run of runs) {
    if (run.kind !== 'balloon') continue;
    const length = Math.round((staleLeft * run.length) / balloonLeft);
    if (length > 0) ranges.push({ start: run.start + random.below(run.length - length + 1), length });
    staleLeft -= length;
    balloonLeft -= run.length;
  }
  return ranges;
}
