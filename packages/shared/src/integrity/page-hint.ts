import type { xxh3 } from '@node-rs/xxhash';
import { PAGE_SIZE } from '../memory/page.js';
import { nativeLibrary } from '../native-library.js';

/** Bytes of a page hint. */
export const HINT_SIZE = 8;

let hasher: xxh3.Xxh3 | undefined;

/** Loaded when it is first needed, which in a fresh transfer is never: it takes longer to load than all the rest. */
function loadHasher(): xxh3.Xxh3 {
  const library = nativeLibrary('@node-rs/xxhash') as { readonly xxh3: typeof xxh3 };
  return library.xxh3.Xxh3.withSeed();
}

/**
 * The hint of each page in `pages`: XXH3-64 with seed 0, little-endian. Fast and forgeable, so a hint only ever says
 * which pages to send first; it never proves anything.
 * @param pages whole pages without gaps
 * @returns 8 bytes a page
 */
export function pageHints(pages: Buffer): Buffer {
  hasher ??= loadHasher();
  const hints = Buffer.allocUnsafe((pages.length / PAGE_SIZE) * HINT_SIZE);
  for (let page = 0; page * PAGE_SIZE < pages.length; page++) {
    hasher.reset();
    hasher.update(pages.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
    hints.writeBigUInt64LE(hasher.digest(), page * HINT_SIZE);
  }
  return hints;
}
