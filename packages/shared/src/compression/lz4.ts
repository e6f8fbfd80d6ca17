import { compressSync, uncompressSync } from 'lz4-napi';
import type { Codec } from './codec.js';

/** Bytes before the block: the length of what was compressed, u32 little-endian. */
const PREFIX_SIZE = 4;

/** One LZ4 block behind the length of what it restores to. */
export const lz4: Codec = {
  compress: (pages) => compressSync(pages),
  restore(stored, length) {
    // The library allocates what the prefix says, up to 4 GiB, before it looks at the block.
    if (stored.length < PREFIX_SIZE || stored.readUInt32LE(0) !== length) return undefined;
    try {
      const pages = uncompressSync(stored);
      return pages.length === length ? pages : undefined;
    } catch {
      return undefined;
    }
  },
};
