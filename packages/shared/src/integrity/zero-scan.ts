import { PAGE_SIZE } from '../memory/page.js';

const ZEROS = Buffer.alloc(65536);

/** Whether [start, end) of `bytes` is all zeros. The range may have at most 64 KiB. */
export function isZero(bytes: Buffer, start: number, end: number): boolean {
  return bytes.compare(ZEROS, 0, end - start, start, end) === 0;
}

/**
 * Which of the pages at [start, start + pages × 4 KiB) of `bytes` hold anything: bit n stands for the n-th page. A page
 * whose first bytes are not zero, as nearly all data has, costs a load instead of a call. Where the first page does not
 * show any, one comparison for the whole range comes first.
 * @param pages at most 16
 */
export function nonZeroMask(bytes: Buffer, start: number, pages: number): number {
  if (!beginsWithData(bytes, start) && isZero(bytes, start, start + pages * PAGE_SIZE)) return 0;
  let mask = 0;
  for (let page = 0; page < pages; page++) {
    const at = start + page * PAGE_SIZE;
    if (beginsWithData(bytes, at) || !isZero(bytes, at, at + PAGE_SIZE)) mask |= 1 << page;
  }
  return mask;
}

/** Whether the page at `at` can be told to hold something at a glance. */
function beginsWithData(bytes: Buffer, at: number): boolean {
  return bytes[at] !== 0 || bytes[at + 8] !== 0;
}
