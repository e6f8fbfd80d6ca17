import { BallastError, ErrorCode } from '../errors.js';

/** Bytes of a page: the unit of the balloon, of zero detection and of whiteouts (4 KiB on every x86-64 and most arm64 guests). */
export const PAGE_SIZE = 4096;

/** Bytes of a leaf: the unit of the manifest. 16 pages, so that a leaf's pages are named by 16 bits. docs/decisions.md says why 64 KiB. */
export const LEAF_SIZE = 65536;

/** Pages of a leaf. */
export const LEAF_PAGES = LEAF_SIZE / PAGE_SIZE;

/** The largest memory that one region may have, and all of a guest's together, in bytes: 64 TiB, far below the 2^53 where a number stops being exact. */
export const MAX_REGION_BYTES = 2 ** 46;

/*
 * Byte offsets pass what V8 takes for small integers, at 2 GiB, and code that was compiled for those is then thrown away.
 * Both of these reckon with floating-point numbers from the first page on, exactly, since a page is a power of two.
 */
const PAGES_PER_BYTE = 1 / PAGE_SIZE;

/** The page that begins at `offset`. Rounded although it is whole, which makes a small integer of it. */
export function pageAt(offset: number): number {
  return Math.floor(offset * PAGES_PER_BYTE);
}

/** Where `page` begins. */
export function offsetOf(page: number): number {
  return page / PAGES_PER_BYTE;
}

/** Number of leaves that a region of `bytes` has; the last one may be short. */
export function leafCount(bytes: number): number {
  return Math.ceil(bytes / LEAF_SIZE);
}

/**
 * Checks that `bytes` can be the size of a memory region.
 * @throws BallastError BAD_FILE when it is zero, no multiple of the page, or beyond MAX_REGION_BYTES
 */
export function checkRegionSize(bytes: number, name: string): void {
  if (bytes === 0) {
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${name} is empty; expected a memory file of at least one ${PAGE_SIZE}-byte page`,
    );
  }
  if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > MAX_REGION_BYTES) {
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${name} has ${bytes} bytes; a memory file may have at most ${MAX_REGION_BYTES} (64 TiB)`,
    );
  }
  if (bytes % PAGE_SIZE !== 0) {
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${name} has ${bytes} bytes, which is no multiple of the ${PAGE_SIZE}-byte page; a guest's memory always is: check that the file is complete`,
    );
  }
}
