import { setImmediate } from 'node:timers/promises';
import { digestOf, pageHints, type RegionManifest } from '@ballast/shared/integrity';
import { Cause } from '@ballast/shared/measure';
import { FrameType } from '@ballast/shared/protocol';
import { PAGE_SIZE, popCount, type ExtentSet } from '@ballast/shared/memory';
import type { Connection } from '@ballast/shared/transport';
import type { Announcer } from './announcer.js';
import type { HoldingsReader } from './holdings-reader.js';
import { LeafReader } from './leaf-reader.js';
import type { BatchPool, PageBatch } from './page-batch.js';
import { NO_PAGES, differingPages } from './page-difference.js';
import type { PageReads } from './source/memory-source.js';

/** What the walk over the pages has done so far; the pipeline's gauges. */
export interface WalkCounts {
  /** Bytes of pages read and scanned. */
  scannedBytes: number;
  /** Bytes of pages sent. */
  sentBytes: number;
  /** Bytes that those take in their frames. */
  storedBytes: number;
  /** Bytes of the tables of leaves frames. */
  tableBytes: number;
}

/** Milliseconds of work without a pause after which timers and signals get their turn. */
const MAX_BUSY_MS = 50;

/** Where the bytes of a region go, and what is noted on the way. */
export interface LeafDestination {
  readonly connection: Connection;
  readonly pool: BatchPool;
  readonly region: number;
  /** Told of the pages that are not sent. */
  readonly announcer: Announcer;
  /** What the destination holds already, of which only the differences are sent; undefined for nothing. */
  readonly holdings: HoldingsReader | undefined;
  /** Gets an entry for each leaf that holds anything. */
  readonly manifest: RegionManifest;
  readonly counts: WalkCounts;
}

/**
 * The data path: reads the pages of `scan`, finds the zeros, hashes each leaf, and sends it at once.
 *
 *      file --pread--> batch memory --zero scan--> packed pages --BLAKE3 a leaf--> (compressed) --> leaves frame --> socket
 *
 * A batch is sent when no further leaf would surely fit, which depends on the pages alone. What is hashed is what is
 * sent: the bytes are read once.
 * @throws BallastError SOURCE_CHANGED, READ, or the connection's failure
 */
export async function sendLeaves(reads: PageReads, scan: ExtentSet, to: LeafDestination): Promise<void> {
  const { stopwatch } = to.connection;
  const reader = new LeafReader(reads, scan, stopwatch);
  let batch = await to.pool.take(to.connection);
  let pausedAt = Date.now();
  while (!reader.done) {
    for (const { leaf, scanned, mask, at, keep } of reader.readStretch(batch.memory, batch.filled, batch.room)) {
      to.counts.scannedBytes += popCount(scanned) * PAGE_SIZE;
      stopwatch.switchTo(Cause.announce);
      const telling = to.announcer.leaf(leaf, scanned, mask);
      if (telling !== undefined) await telling;
      if (mask === 0) continue;
      stopwatch.switchTo(Cause.data);
      const pages = batch.pack(at, keep);
      stopwatch.switchTo(Cause.hash);
      const digest = digestOf(pages);
      to.manifest.set(leaf, mask, digest);
      if (to.pool.compression !== undefined) stopwatch.switchTo(Cause.compress);
      const held = to.holdings === undefined ? undefined : await to.holdings.find(to.region, leaf);
      if (held === undefined) {
        batch.add(leaf, mask, mask, pages.length, digest);
      } else {
        const same = held.mask === mask && held.digest.equals(digest);
        const { sent, keep: differing } = same ? NO_PAGES : differingPages(mask, pageHints(pages), held);
        batch.add(leaf, mask, sent, batch.pack(batch.filled, differing).length, digest);
      }
    }
    stopwatch.switchTo(Cause.data);
    if (batch.room === 0) {
      batch = await nextBatch(batch, to);
    }
    if (Date.now() - pausedAt > MAX_BUSY_MS) {
      stopwatch.switchTo(Cause.wait);
      await setImmediate();
      if (to.connection.failure !== undefined) throw to.connection.failure;
      pausedAt = Date.now();
    }
  }
  if (batch.count > 0) await sendBatch(batch, to);
  else to.pool.give(batch);
  stopwatch.switchTo(Cause.announce);
  await to.announcer.finish();
}

/** What a batch needs on its way out. */
export type BatchDestination = Pick<LeafDestination, 'connection' | 'pool' | 'region' | 'counts'>;

/** Sends a full batch, and returns the next one to fill. */
export async function nextBatch(batch: PageBatch, to: BatchDestination): Promise<PageBatch> {
  const before = performance.now();
  await sendBatch(batch, to);
  const next = await to.pool.take(to.connection);
  const { bytesArrived, bytesOut } = to.connection;
  to.pool.compression?.sent(performance.now() - before, bytesArrived, bytesOut);
  return next;
}

/** Sends a frame of leaves; the batch goes back to its pool when the kernel has taken it. */
export async function sendBatch(
  batch: PageBatch,
  { connection, pool, region, counts }: BatchDestination,
): Promise<void> {
  const { table, pages } = batch.payload();
  counts.sentBytes += batch.pageBytes;
  counts.storedBytes += pages.length;
  counts.tableBytes += table.length;
  await connection.send(
    { type: FrameType.leaves, region, count: batch.count, base: batch.base, checked: table, pages },
    () => {
      pool.give(batch);
    },
  );
}
