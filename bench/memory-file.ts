import { execFile } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Layout, type LayoutOptions, layOut, PAGE, type PageRange } from './layout.js';
import { Random } from './random.js';

/** A file that looks like the memory of a guest. */
export interface MemoryFile {
  readonly path: string;
  readonly size: number;
  readonly layout: Layout;
  /** Bytes that are neither zero nor under the balloon: what a good transfer has to move. */
  readonly dataBytes: number;
  /** Bytes for which the file holds memory: data, zeros, and what is stale under the balloon. */
  readonly residentBytes: number;
}

/** What is in the file; a second `contents` seed makes other bytes in the same places. */
export interface MemoryFileOptions extends LayoutOptions {
  readonly contents?: number;
  readonly onProgress?: (writtenBytes: number) => void;
}

const WRITE = 2 << 20;
const POOL = 16 << 20;
/** The event loop turns this often while a file is made, so that a spinner moves and a signal is heard. */
const TURN_MS = 20;

/** Makes the file. Only what is resident is written, so that the rest stays a hole: 1 TiB of nothing costs nothing. */
export async function makeMemoryFile(path: string, options: MemoryFileOptions): Promise<MemoryFile> {
  const layout = layOut(options);
  const contents = new PageContents(options.contents ?? options.seed);
  const zeros = Buffer.alloc(WRITE);
  const fd = openSync(path, 'wx', 0o600);
  let written = 0;
  let turned = performance.now();
  try {
    ftruncateSync(fd, options.size);
    for (const { start, length, zero } of residentPieces(layout)) {
      const bytes = zero ? zeros.subarray(0, length * PAGE) : contents.pages(start, length);
      writeAll(fd, bytes, start * PAGE);
      written += bytes.length;
      if (performance.now() - turned > TURN_MS) {
        options.onProgress?.(written);
        await nextTurn();
        turned = performance.now();
      }
    }
  } finally {
    closeSync(fd);
  }
  return { path, size: options.size, layout, dataBytes: options.data, residentBytes: written };
}

/** Copies a file with its holes. */
export async function copySparse(from: string, to: string): Promise<void> {
  await promisify(execFile)('cp', ['--sparse=always', from, to]);
}

/** Writes other bytes over a share of the pages that hold data, chosen at random. */
export function rewritePages(path: string, layout: Layout, share: number, seed: number): void {
  const random = new Random(seed);
  const contents = new PageContents(seed);
  const fd = openSync(path, 'r+');
  try {
    for (const { kind, start, length } of layout.runs) {
      if (kind !== 'data') continue;
      for (let page = start; page < start + length; page += 1)
        if (random.below(1000) < share * 1000) writeAll(fd, contents.pages(page, 1), page * PAGE);
    }
  } finally {
    closeSync(fd);
  }
}

/** Writes the balloon's map: one bit a page, the lowest bit of a byte first, 1 = ballooned out. */
export async function writeBalloonBitmap(path: string, layout: Layout): Promise<void> {
  const bits = Buffer.alloc(Math.ceil(layout.pages / 8));
  for (const { kind, start, length } of layout.runs) {
    if (kind !== 'balloon') continue;
    for (let page = start; page < start + length; page += 1)
      bits[page >> 3] = (bits[page >> 3] ?? 0) | (1 << (page & 7));
  }
  await writeFile(path, bits, { mode: 0o600, flag: 'wx' });
}

/** The pieces to be written, in ascending order, none longer than one write. */
function* residentPieces(layout: Layout): Generator<PageRange & { zero: boolean }> {
  const stale = layout.stale.values();
  let nextStale = stale.next();
  for (const run of layout.runs) {
    if (run.kind !== 'balloon') {
      yield* cut(run, run.kind === 'zero');
      continue;
    }
    while (!nextStale.done && nextStale.value.start < run.start + run.length) {
      yield* cut(nextStale.value, false);
      nextStale = stale.next();
    }
  }
}

function* cut({ start, length }: PageRange, zero: boolean): Generator<PageRange & { zero: boolean }> {
  const most = WRITE / PAGE;
  for (let done = 0; done < length; done += most)
    yield { start: start + done, length: Math.min(most, length - done), zero };
}

function writeAll(fd: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}

/**
 * Bytes for pages, quickly: a piece is a random window of a pool of random bytes, and each page of it carries its own
 * number and the seed. So every page is distinct and not zero, and nothing in it compresses.
 */
class PageContents {
  readonly #pool = Buffer.allocUnsafeSlow(POOL);
  readonly #piece = Buffer.allocUnsafeSlow(WRITE);
  readonly #random: Random;
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed >>> 0;
    this.#random = new Random(seed);
    const words = new Uint32Array(this.#pool.buffer);
    for (let index = 0; index < words.length; index += 1) words[index] = this.#random.uint32();
  }

  /** The bytes of these pages; valid until the next call. */
  pages(start: number, length: number): Buffer {
    const size = length * PAGE;
    const from = this.#random.below((POOL - size) / 8) * 8;
    this.#pool.copy(this.#piece, 0, from, from + size);
    for (let index = 0; index < length; index += 1) {
      // One more than the page's number, so that page 0 of seed 0 is not zero either.
      this.#piece.writeUInt32LE((start + index + 1) >>> 0, index * PAGE);
      this.#piece.writeUInt32LE(this.#seed, index * PAGE + 4);
    }
    return this.#piece.subarray(0, size);
  }
}

/** A file that already has all its memory, with other bytes in the same places: nothing of it can be kept. */
export function warmDestination(file: MemoryFileOptions): (destination: string, round: number) => Promise<void> {
  return async (destination, round) => {
    await makeMemoryFile(destination, { ...file, contents: file.seed + 1 + round });
  };
}
