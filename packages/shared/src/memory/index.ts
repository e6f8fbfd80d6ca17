export { alignedBuffer } from './aligned.js';
export { encodeBalloonBitmap, readBalloonBitmap } from './balloon-bitmap.js';
export { readBalloonJson } from './balloon-json.js';
export { ExtentSet, ExtentSetBuilder } from './extents.js';
export type { Extent } from './extents.js';
export {
  SystemCallError,
  addressOf,
  allocateBlocks,
  copyRange,
  exchangeNames,
  mapShared,
  punchHole,
  readAt,
  renameNoReplace,
  seekData,
  seekHole,
  tryLock,
  unlock,
  writeAt,
} from '../libc.js';
export type { Mapping } from '../libc.js';
export { PageCoverage, popCount } from './page-coverage.js';
export type { CoveredPages } from './page-coverage.js';
export {
  LEAF_PAGES,
  LEAF_SIZE,
  MAX_REGION_BYTES,
  PAGE_SIZE,
  checkRegionSize,
  leafCount,
  offsetOf,
  pageAt,
} from './page.js';
