import { describeMachine } from '@ballast/shared/measure';
import { Identify, STRATEGIES, STRATEGY_NAMES, type StrategyName } from '../strategy.js';
import type { BalloonOrigin } from '../balloon/balloon-map.js';
import type { ReadMethod } from '../source/memory-source.js';
import { answersOf } from './answer.js';
import { calibrate, machineRates } from './calibrate.js';
import { evenProfile, type MemoryShape } from './even-profile.js';
import { memoryCells } from './memory-cells.js';
import { profileMemory, type MemoryProfile, type ProfileRates } from './memory-profile.js';
import { predict } from './model.js';
import { cellsOf } from './plan.js';
import type { CellReport, TrialReport } from './trial-report.js';

/** A trial without a receiver: what the model says, from what is known or measured here. */
export interface PredictionOptions {
  /** Memory files, which are read once; or else the shape of one. */
  readonly memory:
    | { readonly files: readonly string[]; readonly balloon?: readonly BalloonOrigin[]; readonly read?: ReadMethod }
    | MemoryShape;
  readonly strategies?: readonly StrategyName[];
  /** Bytes a second. */
  readonly bandwidths: readonly number[];
  /** Bytes of a page, and of what announces that one is empty. */
  readonly pageSize: number;
  readonly headerSize: number;
  /** Bytes a second at which empty memory is scanned. Default: as measured here. */
  readonly scanRate?: number;
  readonly roundTripSeconds: number;
  readonly command?: string;
  readonly version?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** CPU to hand a byte to the kernel, where no link was there to measure it: a copy of 4 GB/s. */
const USUAL_CPU_SECONDS_PER_BYTE = 1 / 4e9;

/** @throws BallastError with a code of docs/errors.md */
export async function predictTrial(options: PredictionOptions): Promise<TrialReport> {
  const { memory, strategies = STRATEGY_NAMES, bandwidths, pageSize, headerSize, roundTripSeconds } = options;
  const speed = calibrate();
  const { profile, rates } = await profileOf(options);
  const measured = machineRates(rates, speed, USUAL_CPU_SECONDS_PER_BYTE);
  const machine =
    options.scanRate === undefined
      ? measured
      : { ...measured, dataScanRate: options.scanRate, zeroScanRate: options.scanRate };
  const cells = cellsOf({ strategies, bandwidths, channels: [1], compress: ['none'] }).map(
    ({ strategy, bandwidth = Infinity }): CellReport => ({
      strategy,
      bandwidth: bandwidth === Infinity ? null : bandwidth,
      channels: 1,
      compress: 'none',
      runs: [],
      seconds: null,
      wire: null,
      causes: null,
      peakBytes: null,
      predicted: predict({
        profile,
        strategy,
        link: { bytesPerSecond: Math.min(bandwidth, 1 / machine.cpuSecondsPerByte), roundTripSeconds },
        machine,
        threads: 1,
        pageSize,
        headerSize,
      }),
      errorPercent: null,
    }),
  );
  return {
    format: 1,
    made: new Date().toISOString(),
    command: options.command ?? 'predictTrial()',
    seed: 0,
    runs: 0,
    complete: true,
    missing: [],
    failure: null,
    environment: {
      ballast: options.version ?? 'unknown',
      to: null,
      sender: describeMachine(),
      receiver: null,
    },
    memory: {
      files: 'files' in memory ? memory.files : [],
      memoryBytes: profile.memoryBytes,
      bytes: profile.bytes,
      ...memoryCells(profile),
    },
    link: null,
    rates: machine,
    cells,
    answers: answersOf(cells),
  };
}

/** Nobody has read the memory: as fast as memory itself. */
const NOTHING_MEASURED: ProfileRates = { dataScanRate: Infinity, zeroScanRate: Infinity, askSeconds: 0 };

async function profileOf({
  memory,
  strategies = STRATEGY_NAMES,
  pageSize,
  signal,
  onProgress,
}: PredictionOptions): Promise<{ profile: MemoryProfile; rates: ProfileRates }> {
  if (!('files' in memory)) {
    return { profile: evenProfile(memory, pageSize), rates: NOTHING_MEASURED };
  }
  return await profileMemory({
    ...memory,
    balloon: memory.balloon ?? [{ kind: 'auto' }],
    looksUnderBalloon: strategies.some((name) => STRATEGIES[name].identify === Identify.scan),
    signal,
    onProgress: onProgress ?? (() => undefined),
  });
}
