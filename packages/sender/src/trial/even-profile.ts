import { LEAF_SIZE } from '@ballast/shared/memory';
import type { MemoryProfile, ProfileRun } from './memory-profile.js';

/** A memory that nobody has yet, for a prediction: what is known of it is how much of it is what. */
export interface MemoryShape {
  readonly memoryBytes: number;
  /** Share of the memory that holds data, 0 to 1. */
  readonly inUse: number;
  /** Share that is resident and zero; what is left was ballooned out. */
  readonly zero: number;
}

/** Pieces that each kind comes in, at most. */
const PIECES = 1024;

/** Data, zeros and balloon by turns, evenly over the whole memory. */
export function evenProfile({ memoryBytes, inUse, zero }: MemoryShape, pageSize: number): MemoryProfile {
  const pages = Math.round(memoryBytes / pageSize);
  const dataPages = Math.min(pages, Math.round(pages * inUse));
  const zeroPages = Math.min(pages - dataPages, Math.round(pages * zero));
  const counts = [
    ['data', dataPages],
    ['zero', zeroPages],
    ['free', pages - dataPages - zeroPages],
  ] as const;
  const pieces = Math.min(PIECES, Math.max(1, Math.floor(pages / 64)));
  const upTo = (count: number, piece: number): number => Math.floor((count * piece) / pieces);
  const runs: ProfileRun[] = [];
  for (let piece = 0; piece < pieces; piece++) {
    for (const [kind, count] of counts) {
      const length = upTo(count, piece + 1) - upTo(count, piece);
      if (length > 0) runs.push({ kind, bytes: length * pageSize });
    }
  }
  const dataBytes = dataPages * pageSize;
  const dataLeaves = Math.min(Math.ceil(memoryBytes / LEAF_SIZE), Math.ceil(dataBytes / LEAF_SIZE) + pieces);
  return {
    memoryBytes: pages * pageSize,
    bytes: { data: dataBytes, zero: zeroPages * pageSize, free: (pages - dataPages - zeroPages) * pageSize, stale: 0 },
    runs,
    freeRuns: pieces,
    dataLeaves,
    dataOrStaleLeaves: dataLeaves,
  };
}
