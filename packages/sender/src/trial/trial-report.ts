import type { ErrorCode } from '@ballast/shared/errors';
import type { Account, CauseName, Machine, Spread, ThreadAccount } from '@ballast/shared/measure';
import type { MachineRates, Prediction } from './model.js';
import type { ProfileKind } from './memory-profile.js';
import type { RawLink } from './raw-link.js';
import type { TrialCell } from './setting.js';
import type { WireBytes } from './wire-bytes.js';

/** All of a trial, as `--report FILE.json` has it and as every other report is made from. Bytes and seconds throughout. */
export interface TrialReport {
  readonly format: 1;
  /** ISO 8601. */
  readonly made: string;
  /** How to do it again. */
  readonly command: string;
  /** The order of the runs follows from it. */
  readonly seed: number;
  /** Runs of each cell that were to be counted. */
  readonly runs: number;
  /** Whether all of them were made; otherwise `missing` says what is not here, and `failure` why. */
  readonly complete: boolean;
  readonly missing: readonly string[];
  readonly failure: { readonly code: ErrorCode; readonly message: string } | null;
  readonly environment: TrialEnvironment;
  readonly memory: TrialMemory;
  /** Null where nothing but a prediction was asked for. */
  readonly link: RawLink | null;
  readonly rates: MachineRates;
  readonly cells: readonly CellReport[];
  /** What a zero bitmap would gain here, in a sentence for each setting. */
  readonly answers: readonly string[];
}

export interface TrialEnvironment {
  readonly ballast: string;
  /** Null where nothing but a prediction was asked for. */
  readonly to: string | null;
  readonly sender: Machine;
  /** What the receiver says of its machine; null before it was asked. */
  readonly receiver: Machine | null;
}

export interface TrialMemory {
  readonly files: readonly string[];
  readonly memoryBytes: number;
  readonly bytes: Readonly<Record<ProfileKind, number>>;
  /** The memory as a row of cells of this many bytes, with the bytes of each kind in each. */
  readonly cellBytes: number;
  readonly cells: readonly MemoryCell[];
}

/** Bytes in use that hold data, bytes in use that are zero, bytes under the balloon. */
export interface MemoryCell {
  readonly data: number;
  readonly zero: number;
  readonly free: number;
}

/** One combination, and all that was measured of it. */
export interface CellReport extends TrialCell {
  /** Runs that count, in the order in which they were made. */
  readonly runs: readonly RunReport[];
  /** Of all runs; null where there is none. */
  readonly seconds: Spread | null;
  /** Of the run in the middle. */
  readonly wire: WireBytes | null;
  /** Medians, of the thread of each side that waited least; null where nobody measured. */
  readonly causes: { readonly sender: CauseSeconds; readonly receiver: CauseSeconds } | null;
  /** Medians of the most that each process had resident; null where nobody measured. */
  readonly peakBytes: { readonly sender: number; readonly receiver: number } | null;
  readonly predicted: Prediction;
  /** How much the prediction is above (+) or below (-) the median, in percent of the median. */
  readonly errorPercent: number | null;
}

export type CauseSeconds = Readonly<Record<CauseName, number>>;

export interface RunReport {
  readonly round: number;
  /** Connections that carried pages. */
  readonly channels: number;
  /** From before the memory file was opened to the receiver's word that all is published. */
  readonly seconds: number;
  readonly wire: WireBytes;
  readonly whiteoutPages: number;
  readonly scannedPages: number;
  readonly askedPages: number;
  readonly sender: Account;
  readonly receiver: Account;
}

/** The thread whose wall time is that of the transfer. */
export function mainOf({ threads }: Account): ThreadAccount {
  const [main] = threads;
  if (main === undefined) throw new RangeError('an account has no threads');
  return main;
}

/** The thread that had most to do: the main one, or with channels the busiest of them. */
export function busiestOf({ threads }: Account): ThreadAccount {
  const busy = ({ seconds, causes }: ThreadAccount): number => seconds - causes.wait;
  return threads.reduce((busiest, thread) => (busy(thread) > busy(busiest) ? thread : busiest));
}
