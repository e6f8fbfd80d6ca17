import { randomInt } from 'node:crypto';
import { BallastError } from '@ballast/shared/errors';
import {
  CAUSE_NAMES,
  describeMachine,
  median,
  spread,
  type Account,
  type CauseName,
  type Machine,
} from '@ballast/shared/measure';
import { PAGE_SIZE } from '@ballast/shared/memory';
import { WHITEOUT_SIZE } from '@ballast/shared/protocol';
import { formatAddress } from '@ballast/shared/transport';
import { checkCompression, type CompressionChoice } from '../compression/choice.js';
import { Identify, STRATEGIES, STRATEGY_NAMES, type StrategyName } from '../strategy.js';
import { answersOf } from './answer.js';
import { calibrate, machineRates } from './calibrate.js';
import { memoryCells } from './memory-cells.js';
import { profileMemory, type MemoryProfile } from './memory-profile.js';
import { predict, type MachineRates } from './model.js';
import { cellsOf, planRuns, type Cell, type PlannedRun } from './plan.js';
import { measureLink, measureRun, type RunOptions } from './runner.js';
import { cellLabel, type TrialCell } from './setting.js';
import type { RawLink } from './raw-link.js';
import { busiestOf, type CauseSeconds, type CellReport, type RunReport, type TrialReport } from './trial-report.js';

export interface TrialOptions extends RunOptions {
  /** Default: all four. */
  readonly strategies?: readonly StrategyName[];
  /** Bytes a second that the sender allows itself; Infinity for no limit. Default: no limit. */
  readonly bandwidths?: readonly number[];
  /** Connections that carry pages; undefined to let the sender choose. Default: 1, as QEMU had in the mail. */
  readonly channels?: readonly (number | undefined)[];
  /** Whether pages are compressed. Default: none. */
  readonly compress?: readonly CompressionChoice[];
  /** Runs of each cell that count; one more comes before them. Default: 5. */
  readonly runs?: number;
  /** What the order of the runs follows from. Default: a random one. */
  readonly seed?: number;
  /** How the trial was asked for, to be quoted in the report. */
  readonly command?: string;
  /** The version of Ballast, to be quoted in the report. */
  readonly version?: string;
  readonly onEvent?: (event: TrialEvent) => void;
}

/** What a trial tells while it works; docs/events.md describes them for users. */
export type TrialEvent =
  | {
      readonly event: 'progress';
      readonly phase: string;
      readonly doneBytes: number;
      readonly totalBytes: number;
      readonly wireBytes: number;
      readonly seconds: number;
    }
  | {
      readonly event: 'trial-start';
      readonly seed: number;
      readonly runs: number;
      readonly cells: readonly TrialCell[];
    }
  | ({ readonly event: 'trial-link' } & RawLink)
  | ({
      readonly event: 'trial-run';
      readonly counts: boolean;
      readonly done: number;
      readonly of: number;
      readonly run: RunReport;
    } & TrialCell)
  | ({ readonly event: 'trial-cell' } & CellReport);

const DEFAULT_RUNS = 5;

/**
 * Repeats the mail's experiment: every combination several times, in turn, against a receiver that keeps listening.
 * What ends it early once the link was measured, an abort included, does not throw: the report has what was measured,
 * and says what is missing and why.
 * @throws BallastError with a code of docs/errors.md when nothing could be measured at all
 */
export async function runTrial(options: TrialOptions): Promise<TrialReport> {
  const { onEvent, signal } = options;
  const {
    strategies = STRATEGY_NAMES,
    bandwidths = [Infinity],
    channels = [1],
    compress = ['none'],
    runs = DEFAULT_RUNS,
  } = options;
  const seed = options.seed ?? randomInt(2 ** 32);
  // Before the survey and the link, which take a while.
  for (const how of compress) checkCompression(how);
  const made = new Date().toISOString();
  const started = performance.now();

  // What the strategies will meet, and how fast this machine and this link are: all that the model knows.
  const looksUnderBalloon = strategies.some((name) => STRATEGIES[name].identify === Identify.scan);
  const { profile, rates } = await profileMemory({
    files: options.files,
    balloon: options.balloon ?? [{ kind: 'auto' }],
    ...(options.read === undefined ? {} : { read: options.read }),
    looksUnderBalloon,
    signal,
    onProgress(doneBytes, totalBytes) {
      const seconds = (performance.now() - started) / 1000;
      onEvent?.({ event: 'progress', phase: 'survey', doneBytes, totalBytes, wireBytes: 0, seconds });
    },
  });
  const speed = calibrate();
  const link = await measureLink(options);
  onEvent?.({ event: 'trial-link', ...link });
  const machine = machineRates(rates, speed, link.cpuSecondsPerByte);

  // Each cell once a round; the first round warms up.
  const caps = bandwidths.map((rate) => (rate === Infinity ? undefined : rate));
  const cells = cellsOf({ strategies, bandwidths: caps, channels, compress });
  const plan = planRuns(cells.length, runs, seed);
  onEvent?.({ event: 'trial-start', seed, runs, cells: cells.map(nameOf) });
  const measured: RunReport[][] = cells.map(() => []);
  const { failure, receiver } = await makeRuns(plan, cells, measured, options);

  const reports = cells.map((cell, index) => cellReport(cell, measured[index] ?? [], profile, link, machine));
  for (const report of reports) onEvent?.({ event: 'trial-cell', ...report });
  return {
    format: 1,
    made,
    command: options.command ?? 'runTrial()',
    seed,
    runs,
    complete: failure === undefined,
    missing: missingOf(reports, runs),
    failure: failure === undefined ? null : { code: failure.code, message: failure.message },
    environment: {
      ballast: options.version ?? 'unknown',
      to: formatAddress(options.to),
      sender: describeMachine(),
      receiver: receiver ?? null,
    },
    memory: { files: options.files, memoryBytes: profile.memoryBytes, bytes: profile.bytes, ...memoryCells(profile) },
    link,
    rates: machine,
    cells: reports,
    answers: answersOf(reports),
  };
}

/** Returns what the receiver says of its machine, and what ended the runs before the plan did. */
async function makeRuns(
  plan: readonly PlannedRun[],
  cells: readonly Cell[],
  measured: readonly RunReport[][],
  options: TrialOptions,
): Promise<{ receiver: Machine | undefined; failure: BallastError | undefined }> {
  const { onEvent } = options;
  let receiver: Machine | undefined;
  for (const [done, { cell: index, round }] of plan.entries()) {
    const cell = cells[index];
    if (cell === undefined) continue;
    try {
      const made = await measureRun(cell, round, options, (progress) => {
        onEvent?.({ ...progress, phase: `run ${done + 1} of ${plan.length}, ${cellLabel(nameOf(cell))}` });
      });
      const { run } = made;
      ({ receiver } = made);
      if (round > 0) measured[index]?.push(run);
      onEvent?.({ event: 'trial-run', counts: round > 0, done: done + 1, of: plan.length, ...nameOf(cell), run });
    } catch (error) {
      return { receiver, failure: BallastError.from(error) };
    }
  }
  return { receiver, failure: undefined };
}

function cellReport(
  cell: Cell,
  runs: readonly RunReport[],
  profile: MemoryProfile,
  link: RawLink,
  machine: MachineRates,
): CellReport {
  const predicted = predict({
    profile,
    strategy: cell.strategy,
    link: {
      bytesPerSecond: Math.min(link.bytesPerSecond, cell.bandwidth ?? Infinity),
      roundTripSeconds: link.roundTripSeconds,
    },
    machine,
    threads: middleRun(runs)?.channels ?? cell.channels ?? 1,
    pageSize: PAGE_SIZE,
    headerSize: WHITEOUT_SIZE,
  });
  const seconds = runs.length === 0 ? null : spread(runs.map((run) => run.seconds));
  return {
    ...nameOf(cell),
    runs,
    seconds,
    wire: middleRun(runs)?.wire ?? null,
    causes:
      runs.length === 0
        ? null
        : {
            sender: medianCauses(runs.map((run) => run.sender)),
            receiver: medianCauses(runs.map((run) => run.receiver)),
          },
    peakBytes:
      runs.length === 0
        ? null
        : {
            sender: median(runs.map(({ sender }) => sender.peakBytes)),
            receiver: median(runs.map(({ receiver }) => receiver.peakBytes)),
          },
    predicted,
    // How far pages can be compressed the model does not know.
    errorPercent:
      seconds === null || cell.compress !== 'none'
        ? null
        : (100 * (predicted.seconds - seconds.median)) / seconds.median,
  };
}

function medianCauses(accounts: readonly Account[]): CauseSeconds {
  const threads = accounts.map(busiestOf);
  return Object.fromEntries(
    CAUSE_NAMES.map((name) => [name, median(threads.map(({ causes }) => causes[name]))]),
  ) as Record<CauseName, number>;
}

/** The run whose time is nearest to the median. */
function middleRun(runs: readonly RunReport[]): RunReport | undefined {
  const middle = median(runs.map(({ seconds }) => seconds));
  return [...runs].sort((a, b) => Math.abs(a.seconds - middle) - Math.abs(b.seconds - middle))[0];
}

function missingOf(reports: readonly CellReport[], wanted: number): string[] {
  return reports
    .filter(({ runs }) => runs.length < wanted)
    .map((cell) => `${cellLabel(cell)}: ${wanted - cell.runs.length} of ${wanted} runs`);
}

function nameOf({ strategy, bandwidth, channels, compress }: Cell): TrialCell {
  return { strategy, bandwidth: bandwidth ?? null, channels: channels ?? null, compress };
}
