import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { isZero, type RegionManifest } from '@ballast/shared/integrity';
import { LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';
import type { RegionStore } from './region-store.js';

/**
 * Checks that a file holds no page that nobody sent: wherever the filesystem has data and the manifest has no page, it
 * must read as zeros. With the digests of the pages that were sent, this makes the root one of the whole file.
 * @throws BallastError DIGEST_MISMATCH with the offset in bytes; READ
 */
export function checkNothingElse(store: RegionStore, manifest: RegionManifest, region: number): void {
  // As many pages as were sent, all of which are there: none is left for anything else.
  if (store.storedBytes === manifest.dataBytes) return;
  const page = Buffer.alloc(PAGE_SIZE);
  for (let run = store.nextData(0); run !== undefined; run = store.nextData(run.end)) {
    for (let offset = run.start - (run.start % PAGE_SIZE); offset < run.end;) {
      const leafStart = offset - (offset % LEAF_SIZE);
      const mask = manifest.mask(leafStart / LEAF_SIZE);
      if (mask === 0xffff) {
        offset = leafStart + LEAF_SIZE;
        continue;
      }
      if ((mask & (1 << ((offset - leafStart) / PAGE_SIZE))) === 0) {
        store.read(offset, page);
        if (!isZero(page, 0, PAGE_SIZE)) {
          throw new BallastError(
            ErrorCode.DIGEST_MISMATCH,
            `memory file ${region} holds bytes at offset ${offset} that nobody sent; another program may be writing it`,
          );
        }
      }
      offset += PAGE_SIZE;
    }
  }
}
