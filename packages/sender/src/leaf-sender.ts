import { setImmediate } from 'node:timers/promises';
import { HINT_SIZE, digestOf, pageHints, type RegionManifest } from '@ballast/shared/integrity';
import { FrameType, type HeldLeaf } from '@ballast/shared/protocol';
import { LEAF_PAGES, PAGE_SIZE, popCount, type ExtentSet } from '@ballast/shared/memory';
import type { Connection } from '@ballast/shared/transport';
import type { Announcer } from './announcer.js';
import type { HoldingsReader } from './holdings-reader.js';
import { LeafReader } from './leaf-reader.js';
import type { BatchPool, PageBatch } from './page-batch.js';
import type { PageReads } from './source/memory-source.js';

/** What the walk over the pages has done so far; the pipeline's gauges. */
export interface WalkCounts {
  /** Bytes of pages read and scanned. */
  scannedBytes: number;
  /** Bytes of pages sent. */
  sentBytes: number;
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
 *      file --pread--> batch memory --zero scan--> packed pages --BLAKE3 a leaf--> leaves frame --> socket
 *
 * A batch is sent when no further leaf would surely fit, which depends on the pages alone. What is hashed is what is
 * sent: the bytes are read once.
 * @throws BallastError SOURCE_CHANGED, READ, or the connection's failure
 */
export async function sendLeaves(reads: PageReads, scan: ExtentSet, to: LeafDestination): Promise<void> {
  const reader = new LeafReader(reads, scan);
  let batch = await to.pool.take(to.connection);
  let pausedAt = Date.now();
  while (!reader.done) {
    for (const { leaf, scanned, mask, at, keep } of reader.readStretch(batch.memory, batch.filled, batch.room)) {
      to.counts.scannedBytes += popCount(scanned) * PAGE_SIZE;
      const telling = to.announcer.leaf(leaf, scanned, mask);
      if (telling !== undefined) await telling;
      if (mask === 0) continue;
      const pages = batch.pack(at, keep);
      const digest = digestOf(pages);
      to.manifest.set(leaf, mask, digest);
      const held = to.holdings === undefined ? undefined : await to.holdings.find(to.region, leaf);
      if (held === undefined) {
        batch.add(leaf, mask, mask, pages.length, digest);
      } else {
        const { sent, keep: differing } = difference(mask, digest, pages, held);
        batch.add(leaf, mask, sent, batch.pack(batch.filled, differing).length, digest);
      }
    }
    if (batch.room === 0) {
      await sendBatch(batch, to);
      batch = await to.pool.take(to.connection);
    }
    if (Date.now() - pausedAt > MAX_BUSY_MS) {
      await setImmediate();
      if (to.connection.failure !== undefined) throw to.connection.failure;
      pausedAt = Date.now();
    }
  }
  if (batch.count > 0) await sendBatch(batch, to);
  else to.pool.give(batch);
  await to.announcer.finish();
}

/**
 * Which pages of a leaf the destination lacks.
 * @param pages the pages in `mask`
 * @returns `sent`: the pages to send; `keep`: the same, counted among the pages in `mask`
 */
function difference(mask: number, digest: Buffer, pages: Buffer, held: HeldLeaf): { sent: number; keep: number } {
  if (held.mask === mask && held.digest.equals(digest)) return { sent: 0, keep: 0 };
  const hints = pageHints(pages);
  let sent = 0;
  let keep = 0;
  for (let page = 0, ours = 0, theirs = 0; page < LEAF_PAGES; page++) {
    const bit = 1 << page;
    if ((mask & bit) !== 0) {
      const same =
        (held.mask & bit) !== 0 &&
        hints.compare(held.hints, theirs, theirs + HINT_SIZE, ours * HINT_SIZE, (ours + 1) * HINT_SIZE) === 0;
      if (!same) {
        sent |= bit;
        keep |= 1 << ours;
      }
      ours++;
    }
    if ((held.mask & bit) !== 0) theirs += HINT_SIZE;
  }
  return { sent, keep };
}

async function sendBatch(batch: PageBatch, { connection, pool, region, counts }: LeafDestination): Promise<void> {
  const { table, pages } = batch.payload();
  counts.sentBytes += pages.length;
  await connection.send(
    { type: FrameType.leaves, region, count: batch.count, base: batch.base, checked: table, pages },
    () => {
      pool.give(batch);
    },
  );
}
