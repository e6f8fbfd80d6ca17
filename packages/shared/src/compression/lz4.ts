import type * as Lz4Library from 'lz4-napi';
import { nativeLibrary } from '../native-library.js';
import type { Codec } from './codec.js';

/** Bytes before the block: the length of what was compressed, u32 little-endian. */
const PREFIX_SIZE = 4;

let library: typeof Lz4Library | undefined;

/** Loaded when it is first needed, which without compression is never. */
function loaded(): typeof Lz4Library {
  library ??= nativeLibrary('lz4-napi') as typeof Lz4Library;
  return library;
}

/** One LZ4 block behind the length of what it restores to. */
export const lz4: Codec = {
  compress: (pages) => loaded().compressSync(pages),
  restore(stored, length) {
    // The library allocates what the prefix says, up to 4 GiB, before it looks at the block.
    if (stored.length < PREFIX_SIZE || stored.readUInt32LE(0) !== length) return undefined;
    try {
      const pages = loaded().uncompressSync(stored);
      return pages.length === length ? pages : undefined;
    } catch {
      return undefined;
    }
  },
};
