import { formatDuration, isInteractive, printable, type ActionContext, type CommonOptions } from '@ballast/shared/cli';
import { BallastError, ErrorCode, systemReason } from '@ballast/shared/errors';
import { MAX_REGION_BYTES } from '@ballast/shared/memory';
import type { Address } from '@ballast/shared/transport';
import type { BalloonOrigin } from '../balloon/balloon-map.js';
import type { CompressionChoice } from '../compression/choice.js';
import type { ReadMethod } from '../source/memory-source.js';
import type { StrategyName } from '../strategy.js';
import { cellLabel } from '../trial/setting.js';
import { predictTrial } from '../trial/predict-trial.js';
import { reportFormatOf } from '../trial/report/format-names.js';
import { REPORT_FORMATS } from '../trial/report/formats.js';
import { trialText } from '../trial/report/text.js';
import { runTrial, type TrialEvent } from '../trial/trial.js';
import type { TrialReport } from '../trial/trial-report.js';
import { checkReportEnding } from './trial-options.js';
import { VERSION } from './version.js';
import { checkWrittenFile, writeNamedFile } from './written-file.js';

export interface TrialCliOptions extends CommonOptions {
  readonly to?: Address;
  readonly balloon?: readonly BalloonOrigin[];
  readonly read?: ReadMethod;
  readonly strategies: readonly StrategyName[];
  readonly bandwidths?: readonly number[];
  readonly channels?: readonly (number | undefined)[];
  readonly compress?: CompressionChoice | readonly CompressionChoice[];
  readonly runs: number;
  readonly seed?: number;
  readonly report?: readonly string[];
  readonly timeout: number;
  readonly tlsDir?: string;
  readonly tlsHostname?: string;
  readonly predict?: boolean;
  readonly memory?: number;
  /** Shares of the memory, or bytes of it where 1 or more. */
  readonly inUse?: number;
  readonly zero: number;
  readonly pageSize: number;
  readonly headerSize: number;
  readonly scanRate?: number;
  readonly roundTrip: number;
}

/** Bytes a second that are predicted for where nobody says which: what people have between two hosts. */
const USUAL_BANDWIDTHS = [1e9 / 8, 1e10 / 8];

/** What a trial over a link would ignore, and a prediction, and one of a memory that nobody has yet. */
const PREDICTION_ONLY = [
  '--memory',
  '--in-use',
  '--zero',
  '--page-size',
  '--header-size',
  '--scan-rate',
  '--round-trip',
] as const;
const MEASURING_ONLY = ['--runs', '--seed', '--timeout', '--tls-dir', '--tls-hostname'] as const;
const FILE_ONLY = ['--balloon', '--read'] as const;

/** `ballast-send trial FILE --to HOST:PORT`, and `ballast-send trial --predict` */
export async function runTrialCommand(options: TrialCliOptions, context: ActionContext): Promise<void> {
  const paths = [options.report ?? []].flat();
  for (const path of paths) {
    // Before the command it is the option of a transfer, which takes any ending.
    checkReportEnding(path);
    checkWrittenFile('--report', path, context.args);
  }
  const report = options.predict === true ? await predicted(options, context) : await measured(options, context);
  const { output } = context;
  output.print(trialText(report, output.style.columns));
  output.event({ event: 'trial-done', ...report });
  const unwritten = paths.flatMap((path) => writeReport(path, report) ?? []);
  const failures =
    report.failure === null ? unwritten : [new BallastError(report.failure.code, sentenceOf(report)), ...unwritten];
  const [failure, ...others] = failures;
  for (const { message } of others) output.warn(message);
  if (failure !== undefined) throw failure;
  output.done([
    options.predict === true ? 'predicted' : `${report.cells.length} combinations measured, ${report.runs} times each`,
    ...paths.map((path) => `report: ${printable(path, 200)}`),
  ]);
}

function runLine({ done, of, counts, run, ...cell }: TrialEvent & { event: 'trial-run' }): string {
  return `run ${done} of ${of}: ${cellLabel(cell)}, ${formatDuration(run.seconds)}${counts ? '' : ' (not counted)'}`;
}

function sentenceOf({ failure, missing }: TrialReport): string {
  return `${failure?.message ?? ''}; what was measured before is reported, and missing are ${missing.join(', ')}`;
}

async function measured(
  options: TrialCliOptions,
  { args: files, written, output, signal }: ActionContext,
): Promise<TrialReport> {
  refuse(
    written,
    PREDICTION_ONLY,
    (name) => `${name} describes a trial that measures nothing; add --predict, or leave it out`,
  );
  const { to, tlsDir, tlsHostname, balloon, read, seed } = options;
  if (files.length === 0)
    throw usage('no memory file was given; expected ballast-send trial FILE --to HOST:PORT, or --predict');
  if (to === undefined)
    throw usage(
      'it is not said where to; add --to HOST:PORT of a waiting ballast-receive --sink --keep-listening, or --predict',
    );
  if (tlsHostname !== undefined && tlsDir === undefined)
    throw usage('--tls-hostname names a certificate, and without --tls-dir there is none; add --tls-dir');
  return await runTrial({
    files,
    to,
    strategies: options.strategies,
    ...(options.bandwidths && { bandwidths: options.bandwidths }),
    ...(options.channels && { channels: [options.channels].flat() }),
    ...(options.compress && { compress: [options.compress].flat() }),
    runs: options.runs,
    ...(seed === undefined ? {} : { seed }),
    ...(balloon && { balloon }),
    ...(read && { read }),
    ...(tlsDir === undefined
      ? {}
      : { tls: { directory: tlsDir, ...(tlsHostname === undefined ? {} : { hostname: tlsHostname }) } }),
    timeoutMs: options.timeout * 1000,
    signal,
    command: commandLine(),
    version: VERSION,
    onEvent(event) {
      output.event(event);
      // In a log a line for each run that is done says enough.
      if (event.event === 'progress' && isInteractive(process.stderr)) output.progress(event);
      else if (event.event === 'trial-start') output.note(`the order of the runs is that of --seed ${event.seed}`);
      else if (event.event === 'trial-run') output.note(runLine(event));
    },
  });
}

async function predicted(
  options: TrialCliOptions,
  { args: files, written, output, signal }: ActionContext,
): Promise<TrialReport> {
  const { memory, inUse, zero, balloon, read, scanRate, pageSize, headerSize } = options;
  if (options.to !== undefined) throw usage('--predict needs no receiver; leave out --to, or --predict');
  if ([options.channels ?? 1].flat().some((channels) => channels !== 1))
    throw usage('--predict knows one channel, as QEMU had in the mail; leave out --channels, or measure with --to');
  if ([options.compress ?? 'none'].flat().some((compress) => compress !== 'none'))
    throw usage('--predict does not know how far pages can be compressed; leave out --compress, or measure with --to');
  refuse(written, MEASURING_ONLY, (name) => `--predict measures nothing over a link; leave out ${name}, or --predict`);
  let shape: Parameters<typeof predictTrial>[0]['memory'];
  if (files.length > 0) {
    if (memory !== undefined || inUse !== undefined || written.has('--zero'))
      throw usage(
        'a memory file says itself how large it is and what is in it; leave out --memory, --in-use and --zero, or the file',
      );
    shape = { files, ...(balloon && { balloon }), ...(read && { read }) };
  } else {
    if (memory === undefined || inUse === undefined)
      throw usage(
        '--predict needs a memory file, or --memory SIZE and --in-use SHARE of one, such as --memory 16GiB --in-use 25%',
      );
    refuse(written, FILE_ONLY, (name) => `${name} speaks of a memory file, and none was given; leave it out`);
    shape = { memoryBytes: memory, inUse: shareOf(inUse, memory), zero: shareOf(zero, memory) };
    if (memory > MAX_REGION_BYTES) throw usage('--memory is more than the 64 TiB that a memory can have');
    if (memory < pageSize) throw usage(`--memory is less than a page of ${pageSize} bytes`);
    if (shape.inUse + shape.zero > 1) throw usage('--in-use and --zero together are more than all of the memory');
  }
  const started = performance.now();
  return await predictTrial({
    memory: shape,
    strategies: options.strategies,
    bandwidths: options.bandwidths ?? USUAL_BANDWIDTHS,
    pageSize,
    headerSize,
    ...(scanRate === undefined ? {} : { scanRate }),
    roundTripSeconds: options.roundTrip,
    command: commandLine(),
    version: VERSION,
    signal,
    onProgress(doneBytes, totalBytes) {
      const seconds = (performance.now() - started) / 1000;
      const progress = { phase: 'survey', doneBytes, totalBytes, wireBytes: 0, seconds };
      output.event({ event: 'progress', ...progress });
      output.progress(progress);
    },
  });
}

/** @throws BallastError USAGE for the first of `names` that was written */
function refuse(written: ReadonlySet<string>, names: readonly string[], sentence: (name: string) => string): void {
  const stray = names.find((name) => written.has(name));
  if (stray !== undefined) throw usage(sentence(stray));
}

/** A share of a memory; 1 or more are bytes of it, but 100 % is all. */
function shareOf(value: number, memoryBytes: number): number {
  return value > 1 ? value / memoryBytes : value;
}

/** Returns why it could not be written: there may be others, and the trial may have taken hours. */
function writeReport(path: string, report: TrialReport): BallastError | undefined {
  const format = reportFormatOf(path);
  if (format === undefined) return undefined;
  try {
    writeNamedFile(path, REPORT_FORMATS[format](report));
    return undefined;
  } catch (error) {
    return new BallastError(
      ErrorCode.WRITE,
      `the report ${path} cannot be written ${systemReason(error)}; what it would say is above`,
      { cause: error },
    );
  }
}

/** As it was typed, but for the path of the program. */
function commandLine(): string {
  const words = process.argv
    .slice(2)
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`));
  return ['ballast-send', ...words].join(' ');
}

function usage(message: string): BallastError {
  return new BallastError(ErrorCode.USAGE, message);
}
