import { setImmediate } from 'node:timers/promises';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { digestOf, type Manifest } from '@ballast/shared/integrity';
import { LEAF_SIZE } from '@ballast/shared/memory';
import { aborted } from './connect.js';
import { LeafReader } from './leaf-reader.js';
import { PageBatch } from './page-batch.js';
import type { MemorySource } from './source/memory-source.js';
import type { RegionPlan } from './strategy.js';

/**
 * Reads everything that was read once more, and compares it with what was sent.
 * @throws BallastError SOURCE_CHANGED with the path and the offset in bytes of the first leaf that differs; ABORTED
 */
export async function checkSource(
  source: MemorySource,
  plans: readonly RegionPlan[],
  sent: Manifest,
  signal: AbortSignal | undefined,
): Promise<void> {
  const batch = new PageBatch();
  for (const [index, region] of source.regions.entries()) {
    const plan = plans[index];
    const manifest = sent[index];
    if (plan === undefined || manifest === undefined) continue;
    const reader = new LeafReader(region.reads, plan.scan);
    while (!reader.done) {
      for (const { leaf, mask, at, keep } of reader.readStretch(batch.memory, 0, batch.room)) {
        const same =
          mask === 0 ? manifest.mask(leaf) === 0 : manifest.matches(leaf, mask, digestOf(batch.packAt(at, keep)));
        if (!same) {
          throw new BallastError(
            ErrorCode.SOURCE_CHANGED,
            `${region.path} changed while it was sent, in the ${LEAF_SIZE} bytes at offset ${leaf * LEAF_SIZE}; pause the guest, or move it live`,
          );
        }
      }
      await setImmediate();
      if (signal?.aborted === true) throw aborted();
    }
    region.checkSize();
  }
}
