import type { Codec } from '@ballast/shared/compression';

/** A leaf that does not shrink by at least this share goes as it is: restoring it would cost more than it saves. */
const LEAST_SAVING = 1 / 16;

/** Compresses leaves on their way into a batch, all of them or those for which it pays. */
export interface LeafCompression {
  /**
   * Replaces the beginning of `pages` by what they compress to.
   * @returns bytes that the leaf takes now; as many as before where it stays as it is
   */
  shrink(pages: Buffer): number;
  /**
   * A batch was handed over.
   * @param waitedMs milliseconds that the walk over the pages had to wait for it
   * @param arrivedBytes what the other host has had of the connection so far
   */
  sent(waitedMs: number, arrivedBytes: number): void;
}

/** Compresses every leaf that gets smaller. */
export function compressAll(codec: Codec): LeafCompression {
  return {
    shrink: (pages) => shrinkWith(codec, pages),
    sent() {
      // Whatever the link is like.
    },
  };
}

/** As LeafCompression has it. */
export function shrinkWith(codec: Codec, pages: Buffer): number {
  const compressed = codec.compress(pages);
  if (compressed.length > pages.length * (1 - LEAST_SAVING)) return pages.length;
  compressed.copy(pages);
  return compressed.length;
}
