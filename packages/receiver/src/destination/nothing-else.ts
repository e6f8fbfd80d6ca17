import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { isZero, type RegionManifest } from '@ballast/shared/integrity';
import { LEAF_SIZE, PAGE_SIZE, type Extent } from '@ballast/shared/memory';
import type { RegionStore } from './region-store.js';

/** Milliseconds of reading after which others get their turn: heartbeats, and a signal. */
const MAX_BUSY_MS = 10;

/**
 * Checks that a file holds no page that nobody sent: wherever the filesystem has data and the manifest has no page, it
 * must read as zeros. With the digests of the pages that were sent, this makes the root one of the whole file.
 * @param pause called now and then; what it throws ends the check
 * @throws BallastError DIGEST_MISMATCH with the offset in bytes; READ
 */
export async function checkNothingElse(
  store: RegionStore,
  manifest: RegionManifest,
  region: number,
  pause: () => Promise<void>,
): Promise<void> {
  // As many pages as were sent, all of which are there: none is left for anything else.
  if (store.storedBytes === manifest.dataBytes) return;
  const bytes = Buffer.alloc(LEAF_SIZE);
  let pausedAt = performance.now();
  for (const run of runsOfData(store, manifest)) {
    for (let offset = run.start - (run.start % PAGE_SIZE); offset < run.end;) {
      const leafStart = offset - (offset % LEAF_SIZE);
      const mask = manifest.mask(leafStart / LEAF_SIZE);
      // What is empty is read a leaf at a time, since there may be much of it.
      const end = mask === 0 || mask === 0xffff ? leafStart + LEAF_SIZE : offset + PAGE_SIZE;
      if (mask === 0 || (mask & (1 << ((offset - leafStart) / PAGE_SIZE))) === 0) {
        const piece = bytes.subarray(0, Math.min(end, store.bytes) - offset);
        store.read(offset, piece);
        const page = firstPageOfData(piece);
        if (page !== undefined) {
          throw new BallastError(
            ErrorCode.DIGEST_MISMATCH,
            `memory file ${region} holds bytes at offset ${offset + page} that nobody sent; another program may be writing it`,
          );
        }
      }
      offset = end;
      if (performance.now() - pausedAt <= MAX_BUSY_MS) continue;
      await pause();
      pausedAt = performance.now();
    }
  }
}

/** Where there may be bytes that are not zero. */
function* runsOfData(store: RegionStore, manifest: RegionManifest): Generator<Extent> {
  const { hugePageBytes } = store.shared.file ?? {};
  if (hugePageBytes !== undefined) {
    // hugetlbfs tells of no holes. But where no more huge pages take room than hold what was sent, the others are holes.
    const sent = hugePagesOf(manifest, hugePageBytes);
    if (store.storedBytes === sent.length * hugePageBytes) {
      for (const start of sent) yield { start, end: start + hugePageBytes };
      return;
    }
  }
  for (let run = store.nextData(0); run !== undefined; run = store.nextData(run.end)) yield run;
}

/** Offsets of the huge pages that hold a page of the manifest, in order. */
function hugePagesOf(manifest: RegionManifest, hugePageBytes: number): number[] {
  const starts: number[] = [];
  for (const { leaf } of manifest) {
    const start = Math.floor((leaf * LEAF_SIZE) / hugePageBytes) * hugePageBytes;
    if (starts.at(-1) !== start) starts.push(start);
  }
  return starts;
}

function firstPageOfData(bytes: Buffer): number | undefined {
  if (isZero(bytes, 0, bytes.length)) return undefined;
  for (let at = 0; at < bytes.length; at += PAGE_SIZE) if (!isZero(bytes, at, at + PAGE_SIZE)) return at;
  return undefined;
}
