import xxhash from '@node-rs/xxhash';
import { PAGE_SIZE } from '../memory/page.js';

/** Bytes of a page hint. */
export const HINT_SIZE = 8;

const hasher = xxhash.xxh3.Xxh3.withSeed();

/**
 * The hint of each page in `pages`: XXH3-64 with seed 0, little-endian. Fast and forgeable, so a hint only ever says
 * which pages to send first; it never proves anything.
 * @param pages whole pages without gaps
 * @returns 8 bytes a page
 */
export function pageHints(pages: Buffer): Buffer {
  const hints = Buffer.allocUnsafe((pages.length / PAGE_SIZE) * HINT_SIZE);
  for (let page = 0; page * PAGE_SIZE < pages.length; page++) {
    hasher.reset();
    hasher.update(pages.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
    hints.writeBigUInt64LE(hasher.digest(), page * HINT_SIZE);
  }
  return hints;
}
