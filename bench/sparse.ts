import { seekData, seekHole } from '@ballast/shared/memory';

/** Bytes [start, end) of a file. */
export interface Extent {
  readonly start: number;
  readonly end: number;
}

/** The parts of a file that are not holes. Where the filesystem reports none, that is the whole file. */
export function* dataExtents(fd: number, size: number): Generator<Extent> {
  for (let end = 0; end < size;) {
    const start = seekData(fd, end);
    if (start === null) return;
    end = seekHole(fd, start) ?? size;
    yield { start, end };
  }
}

/** All places that are in one of the two lists, as one list in ascending order. */
export function union(first: readonly Extent[], second: readonly Extent[]): Extent[] {
  const all = [...first, ...second].sort((a, b) => a.start - b.start);
  const merged: Extent[] = [];
  for (const extent of all) {
    const last = merged.at(-1);
    if (last !== undefined && extent.start <= last.end) {
      merged[merged.length - 1] = { start: last.start, end: Math.max(last.end, extent.end) };
    } else merged.push(extent);
  }
  return merged;
}
