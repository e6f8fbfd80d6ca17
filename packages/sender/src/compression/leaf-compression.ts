import type { Codec } from '@ballast/shared/compression';

/** A leaf that does not shrink by at least this share goes as it is: restoring it would cost more than it saves. */
const LEAST_SAVING = 1 / 16;

/** What a leaf takes on the wire. */
export interface StoredLeaf {
  /** Bytes: as many as its pages have where it stays as it is. */
  readonly stored: number;
  /** Which of the agreed compressions it was compressed with, counted from 0; 0 where it stays as it is. */
  readonly codec: number;
}

/** Compresses leaves on their way into a batch, all of them or those for which it pays. */
export interface LeafCompression {
  /** Replaces the beginning of `pages` by what they compress to. */
  shrink(pages: Buffer): StoredLeaf;
  /**
   * A batch was handed over.
   * @param waitedMs milliseconds that the walk over the pages had to wait for it
   * @param arrivedBytes what the other host has had of the connection so far
   * @param sentBytes what was handed over on it so far
   */
  sent(waitedMs: number, arrivedBytes: number, sentBytes: number): void;
}

/** Compresses every leaf that gets smaller. */
export function compressAll(codec: Codec): LeafCompression {
  return {
    shrink: (pages) => storeSmaller(pages, codec.compress(pages), 0),
    sent() {
      // Whatever the link is like.
    },
  };
}

/** Puts `compressed` in the place of the pages where that saves enough. */
export function storeSmaller(pages: Buffer, compressed: Buffer, codec: number): StoredLeaf {
  if (compressed.length > pages.length * (1 - LEAST_SAVING)) return asItIs(pages);
  compressed.copy(pages);
  return { stored: compressed.length, codec };
}

export function asItIs(pages: Buffer): StoredLeaf {
  return { stored: pages.length, codec: 0 };
}
