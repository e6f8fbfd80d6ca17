import { Compression, type Codec } from './codec.js';
import { lz4 } from './lz4.js';
import { zstd } from './zstd.js';

export { Compression, type Codec } from './codec.js';

/** Whether this process has what a compression needs. */
export function isAvailable(compression: Compression): boolean {
  return compression === Compression.none || codecOf(compression) !== undefined;
}

/** The codec of a compression; undefined for none, and where this Node.js does not have it. */
export function codecOf(compression: Compression): Codec | undefined {
  switch (compression) {
    case Compression.none:
      return undefined;
    case Compression.lz4:
      return lz4;
    case Compression.zstd:
      return zstd;
  }
}
