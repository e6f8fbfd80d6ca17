import { closeSync, ftruncateSync, openSync, readSync, statSync, writeFileSync, writeSync } from 'node:fs';

export const PAGE = 4096;
export const LEAF = 65536;

/** What the pages of a run hold in the file. */
export const Fill = {
  /** Nothing: not allocated. */
  hole: 'hole',
  /** Allocated, and all zeros. */
  zero: 'zero',
  /** Bytes that differ from page to page. */
  data: 'data',
  /** A single byte that is not zero, in another place on each page. */
  speck: 'speck',
} as const;
export type Fill = (typeof Fill)[keyof typeof Fill];

export interface Run {
  readonly fill: Fill;
  readonly pages: number;
  /** Whether a balloon bitmap takes the run out, whatever the file holds there. */
  readonly ballooned?: boolean;
}

/** A memory file as runs of pages, from the first page to the last. */
export type Layout = readonly Run[];

/** The first page of each run beside the run. */
export function* placed(layout: Layout): Generator<Run & { readonly start: number }> {
  let start = 0;
  for (const run of layout) {
    yield { ...run, start };
    start += run.pages;
  }
}

export function countPages(layout: Layout, which: (run: Run) => boolean = () => true): number {
  return layout.reduce((sum, run) => sum + (which(run) ? run.pages : 0), 0);
}

/** Pages whose bytes a reader finds to be not zero. */
export function isData({ fill }: Run): boolean {
  return fill === Fill.data || fill === Fill.speck;
}

/** Pages that a balloon map of holes and bitmap takes out. */
export function isFree({ fill, ballooned }: Run): boolean {
  return fill === Fill.hole || ballooned === true;
}

/** Writes the file, sparse where the layout has holes. */
export function writeMemoryFile(path: string, layout: Layout, seed = 1): void {
  const fd = openSync(path, 'w', 0o600);
  try {
    ftruncateSync(fd, countPages(layout) * PAGE);
    for (const { fill, start, pages } of placed(layout)) {
      if (fill === Fill.hole) continue;
      for (let page = start; page < start + pages; page++)
        writeSync(fd, pageContents(fill, page, seed), 0, PAGE, page * PAGE);
    }
  } finally {
    closeSync(fd);
  }
}

/** The whole file in memory. @param knowsBalloon whether ballooned runs count as zeros */
export function contentsOf(layout: Layout, seed = 1, knowsBalloon = false): Buffer {
  return Buffer.concat(
    [...placed(layout)].flatMap(({ fill, start, pages, ballooned }) =>
      Array.from({ length: pages }, (_, index) =>
        pageContents(knowsBalloon && ballooned === true ? Fill.zero : fill, start + index, seed),
      ),
    ),
  );
}

/** Offset in bytes of the first page of a file that is not what the layout says, or undefined when all are. */
export function firstWrongPage(path: string, layout: Layout, seed = 1, knowsBalloon = false): number | undefined {
  const fd = openSync(path, 'r');
  const found = Buffer.alloc(PAGE);
  try {
    for (const { fill, start, pages, ballooned } of placed(layout)) {
      // Huge holes are proved by the blocks that the file has, not by reading them.
      if (fill === Fill.hole && pages > 65536) continue;
      const expected = knowsBalloon && ballooned === true ? Fill.zero : fill;
      for (let page = start; page < start + pages; page++) {
        readSync(fd, found, 0, PAGE, page * PAGE);
        if (!found.equals(pageContents(expected, page, seed))) return page * PAGE;
      }
    }
    return undefined;
  } finally {
    closeSync(fd);
  }
}

/** A balloon bitmap: one bit a page, least significant first, 1 for a page that is taken out. */
export function writeBitmap(path: string, layout: Layout): void {
  const bits = Buffer.alloc(Math.ceil(countPages(layout) / 8));
  for (const { ballooned, start, pages } of placed(layout)) {
    if (ballooned !== true) continue;
    for (let page = start; page < start + pages; page++) {
      bits.writeUInt8(bits.readUInt8(page >> 3) | (1 << (page & 7)), page >> 3);
    }
  }
  writeFileSync(path, bits);
}

/** Pages that the filesystem has allocated for a file. */
export function allocatedPages(path: string): number {
  return (statSync(path).blocks * 512) / PAGE;
}

/** What a page holds: the same bytes for the same page and seed, and others for any other. */
export function pageContents(fill: Fill, page: number, seed: number): Buffer {
  const bytes = Buffer.alloc(PAGE);
  if (fill === Fill.data) {
    patternOf(seed).copy(bytes);
    bytes.writeDoubleLE(page + 1, 8 * ((page * 31 + seed) % 512));
  } else if (fill === Fill.speck) {
    // 61 is prime to the page, so that the speck comes to every place of it, the first byte and the last.
    bytes[(page * 61 + 4095 * seed) % PAGE] = 1 + ((page + seed) % 255);
  }
  return bytes;
}

const patterns = new Map<number, Buffer>();

/** 4096 bytes of a xorshift generator. */
function patternOf(seed: number): Buffer {
  let pattern = patterns.get(seed);
  if (pattern === undefined) {
    pattern = Buffer.alloc(PAGE);
    let state = (seed * 2654435761) >>> 0 || 1;
    for (let at = 0; at < PAGE; at += 4) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      pattern.writeInt32LE(state, at);
    }
    patterns.set(seed, pattern);
  }
  return pattern;
}
