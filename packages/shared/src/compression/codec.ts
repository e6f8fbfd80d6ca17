/** How the bytes of leaves may be stored on the wire, by the names that users and the protocol have for it. */
export const Compression = { none: 'none', lz4: 'lz4', zstd: 'zstd' } as const;
export type Compression = (typeof Compression)[keyof typeof Compression];

/** Compresses and restores the pages of one leaf at a time: each is independent, and none is larger than LEAF_SIZE. */
export interface Codec {
  /** The bytes as they go over the wire. They may be more than were given: then the caller sends the pages as they are. */
  compress(pages: Buffer): Buffer;
  /**
   * Restores exactly `length` bytes, and allocates no more than that whatever `stored` says: it comes from a peer.
   * @returns undefined when `stored` is not what `compress` makes of so many bytes, to its last byte
   */
  restore(stored: Buffer, length: number): Buffer | undefined;
}
