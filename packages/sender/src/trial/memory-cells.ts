import { MemoryCells } from '@ballast/shared/cli';
import type { MemoryProfile, ProfileKind } from './memory-profile.js';
import type { MemoryCell } from './trial-report.js';

/** Cells of the picture of a memory: enough to see its shape, few enough to be looked at. */
const MOST_CELLS = 2048;

const SHOWN: Readonly<Record<ProfileKind, keyof MemoryCell>> = {
  data: 'data',
  zero: 'zero',
  free: 'free',
  stale: 'free',
};

/** A memory as a row of cells of even size. */
export function memoryCells({ memoryBytes, runs }: MemoryProfile): { cellBytes: number; cells: MemoryCell[] } {
  const cells = new MemoryCells(memoryBytes, MOST_CELLS);
  let at = 0;
  for (const { kind, bytes } of runs) {
    cells.add(SHOWN[kind], at, at + bytes);
    at += bytes;
  }
  return { cellBytes: cells.cellBytes, cells: Array.from({ length: cells.count }, (_, n) => cells.sum(n, n + 1)) };
}
