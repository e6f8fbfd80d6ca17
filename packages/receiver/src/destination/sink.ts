import { BallastError, ErrorCode } from '@ballast/shared/errors';
import type { Destination } from './destination.js';
import type { RegionStore } from './region-store.js';

/** Keeps nothing: what arrives is verified and forgotten. For trials of a link or of a source. */
export function sink(regionBytes: readonly number[]): Destination {
  const stores = regionBytes.map(sinkStore);
  return {
    stores,
    readsBack: false,
    holds: false,
    async sync() {
      // Nothing to keep.
    },
    async publish() {
      // Nothing to show.
    },
    close: () => undefined,
  };
}

export function sinkStore(bytes: number): RegionStore {
  return {
    bytes,
    mayHoldPages: false,
    shared: { file: undefined, bytes, mayHoldPages: false },
    write() {
      // Forgotten.
    },
    read() {
      throw new BallastError(ErrorCode.INTERNAL, 'a sink holds nothing that could be read back');
    },
    nextData: () => undefined,
    nextDataStart: () => undefined,
    copyFrom() {
      // Forgotten, too.
    },
    release() {
      // Nothing is held.
    },
    close() {
      // Nothing is open.
    },
  };
}
