import { HINT_SIZE } from '@ballast/shared/integrity';
import { LEAF_PAGES } from '@ballast/shared/memory';

/** Pages of one leaf to send. */
export interface PageDifference {
  /** Bit n: page n of the leaf. */
  readonly sent: number;
  /** The same, counted among the pages that are not zero: what `PageBatch.pack` wants. */
  readonly keep: number;
}

export const NO_PAGES: PageDifference = { sent: 0, keep: 0 };

/**
 * Which pages of a leaf the other side lacks, by the hints of both. A hint that lies is caught by the leaf's digest.
 * @param mask pages of ours that are not zero
 * @param hints of them, 8 bytes each
 */
export function differingPages(
  mask: number,
  hints: Buffer,
  held: { readonly mask: number; readonly hints: Buffer },
): PageDifference {
  let sent = 0;
  let keep = 0;
  for (let page = 0, ours = 0, theirs = 0; page < LEAF_PAGES; page++) {
    const bit = 1 << page;
    if ((mask & bit) !== 0) {
      const same =
        (held.mask & bit) !== 0 &&
        hints.compare(held.hints, theirs, theirs + HINT_SIZE, ours * HINT_SIZE, (ours + 1) * HINT_SIZE) === 0;
      if (!same) {
        sent |= bit;
        keep |= 1 << ours;
      }
      ours++;
    }
    if ((held.mask & bit) !== 0) theirs += HINT_SIZE;
  }
  return { sent, keep };
}
