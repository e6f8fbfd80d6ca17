import type { Group } from './group.js';
import type { Machine } from './machine.js';

/** Everything that one run of the bench found; what is written as JSON and read again to be rendered. */
export interface Results {
  readonly format: 1;
  /** When it began, in ISO 8601. */
  readonly made: string;
  readonly command: string;
  /** Measured rounds; one more warmed up. */
  readonly runs: number;
  readonly folder: 'tmpfs' | 'disk';
  readonly machine: Machine;
  readonly groups: readonly Group[];
}

/** Reads results that were written before. */
export function parseResults(text: string): Results {
  const value = parseJson(text);
  const format = typeof value === 'object' && value !== null && 'format' in value ? value.format : undefined;
  if (format !== 1) throw new Error('this is no result of the bench; expected a file that --out has written');
  return value as Results;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
