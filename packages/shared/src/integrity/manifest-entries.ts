import { DIGEST_SIZE } from './digest.js';
import type { RegionManifest } from './manifest.js';

/** Entries of a manifest as arrays, which threads can hand to each other without a copy. */
export interface ManifestEntries {
  readonly leaves: Float64Array;
  readonly masks: Uint16Array;
  /** 32 bytes for each leaf. */
  readonly digests: Uint8Array;
}

/** All entries of a region's manifest, by ascending leaf. */
export function entriesOf(manifest: RegionManifest): ManifestEntries {
  const leaves = new Float64Array(manifest.entries);
  const masks = new Uint16Array(manifest.entries);
  const digests = new Uint8Array(manifest.entries * DIGEST_SIZE);
  let index = 0;
  for (const { leaf, mask, digest } of manifest) {
    leaves[index] = leaf;
    masks[index] = mask;
    digests.set(digest, index * DIGEST_SIZE);
    index++;
  }
  return { leaves, masks, digests };
}

/** Adds entries to a region's manifest. */
export function addEntries(manifest: RegionManifest, { leaves, masks, digests }: ManifestEntries): void {
  for (const [index, leaf] of leaves.entries()) {
    manifest.set(leaf, masks[index] ?? 0, digests.subarray(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE));
  }
}

/** What may be moved to another thread instead of copied. */
export function buffersOf({ leaves, masks, digests }: ManifestEntries): ArrayBufferLike[] {
  return [leaves.buffer, masks.buffer, digests.buffer];
}
