export { DIGEST_SIZE, StreamingDigest, digestOf } from './digest.js';
export { RegionManifest, emptyManifest, manifestRoot } from './manifest.js';
export type { LeafEntry, Manifest } from './manifest.js';
export { addEntries, buffersOf, entriesOf } from './manifest-entries.js';
export type { ManifestEntries } from './manifest-entries.js';
export { isZero, nonZeroMask } from './zero-scan.js';
export { HINT_SIZE, pageHints } from './page-hint.js';
