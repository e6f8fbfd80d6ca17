import { setImmediate } from 'node:timers/promises';
import { digestOf, emptyManifest, manifestRoot } from '@ballast/shared/integrity';
import { ExtentSet, LEAF_PAGES, LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';
import { readBalloonMap, type BalloonMap, type BalloonOrigin } from './balloon/balloon-map.js';
import { aborted } from './connect.js';
import { LeafReader, type ReadLeaf } from './leaf-reader.js';
import { PageBatch } from './page-batch.js';
import { MemorySource, type ReadMethod } from './source/memory-source.js';

/** Milliseconds of work without a pause after which signals get their turn. */
const MAX_BUSY_MS = 50;

/** What a page can be. */
export const PageKind = { data: 'data', zero: 'zero', free: 'free' } as const;
export type PageKind = (typeof PageKind)[keyof typeof PageKind];

export interface SurveyOptions {
  /** Memory files of one guest, in order; read only. */
  readonly files: readonly string[];
  /** Default: the holes that the filesystem reports, if it does. */
  readonly balloon?: readonly BalloonOrigin[];
  readonly read?: ReadMethod;
  /** Ends the survey, which then throws ABORTED. */
  readonly signal?: AbortSignal;
}

/** Bytes of each kind of page. */
export interface PageTotals {
  readonly memoryBytes: number;
  readonly dataBytes: number;
  readonly zeroBytes: number;
  readonly freeBytes: number;
}

export interface MemoryDigest extends PageTotals {
  /** Root of the manifest, hexadecimal: what a transfer of this memory ends with on both sides. */
  readonly root: string;
  /** BLAKE3 of the balloon map that was used, hexadecimal. */
  readonly mapDigest: string;
}

/**
 * The root of a memory, without a transfer.
 * @throws BallastError with a code of docs/errors.md
 */
export async function digestMemory(options: SurveyOptions): Promise<MemoryDigest> {
  return await withSource(options, async (source, balloon) => {
    const manifest = emptyManifest(source.regions.map((region) => region.bytes));
    await walk(source, balloon, options.signal, ({ leaf, mask, at, keep }, region, batch) => {
      if (mask !== 0) manifest[region]?.set(leaf, mask, digestOf(batch.packAt(at, keep)));
    });
    const dataBytes = manifest.reduce((sum, region) => sum + region.dataBytes, 0);
    return {
      root: manifestRoot(manifest).toString('hex'),
      ...totals(source, balloon, dataBytes),
      mapDigest: balloon.digest.toString('hex'),
    };
  });
}

/** One region as runs of pages of one kind. */
export interface RegionMap extends PageTotals {
  readonly path: string;
  readonly data: ExtentSet;
  readonly zero: ExtentSet;
  readonly free: ExtentSet;
}

/**
 * What each page of a memory is.
 * @throws BallastError with a code of docs/errors.md
 */
export async function mapMemory(options: SurveyOptions): Promise<RegionMap[]> {
  return await withSource(options, async (source, balloon) => {
    const data = source.regions.map(() => ExtentSet.builder());
    await walk(source, balloon, options.signal, ({ leaf, mask }, region) => {
      for (let page = 0; page < LEAF_PAGES; page++) {
        const start = leaf * LEAF_SIZE + page * PAGE_SIZE;
        if ((mask & (1 << page)) !== 0) data[region]?.add(start, start + PAGE_SIZE);
      }
    });
    return source.regions.map(({ path, bytes }, index) => {
      const dataPages = data[index]?.build() ?? ExtentSet.empty;
      const free = balloon.free[index] ?? ExtentSet.empty;
      const zero = dataPages.union(free).complement(bytes);
      return {
        path,
        data: dataPages,
        zero,
        free,
        memoryBytes: bytes,
        dataBytes: dataPages.bytes,
        zeroBytes: zero.bytes,
        freeBytes: free.bytes,
      };
    });
  });
}

async function withSource<T>(
  options: SurveyOptions,
  work: (source: MemorySource, balloon: BalloonMap) => Promise<T>,
): Promise<T> {
  const source = MemorySource.open(options.files, options.read);
  try {
    return await work(source, readBalloonMap(source, options.balloon ?? [{ kind: 'auto' }]));
  } finally {
    source.close();
  }
}

/** Reads all pages that are not free; `visit` may look at a leaf's pages in the batch until it returns. */
async function walk(
  source: MemorySource,
  balloon: BalloonMap,
  signal: AbortSignal | undefined,
  visit: (leaf: ReadLeaf, region: number, batch: PageBatch) => void,
): Promise<void> {
  const batch = new PageBatch();
  let pausedAt = performance.now();
  for (const [index, region] of source.regions.entries()) {
    const reader = new LeafReader(region.reads, (balloon.free[index] ?? ExtentSet.empty).complement(region.bytes));
    while (!reader.done) {
      for (const leaf of reader.readStretch(batch.memory, 0, batch.room)) visit(leaf, index, batch);
      if (performance.now() - pausedAt < MAX_BUSY_MS) continue;
      await setImmediate();
      if (signal?.aborted === true) throw aborted();
      pausedAt = performance.now();
    }
    region.checkSize();
  }
}

function totals(source: MemorySource, balloon: BalloonMap, dataBytes: number): PageTotals {
  const freeBytes = balloon.free.reduce((sum, extents) => sum + extents.bytes, 0);
  return { memoryBytes: source.bytes, dataBytes, zeroBytes: source.bytes - dataBytes - freeBytes, freeBytes };
}
