import { parseRate, parseSeconds, parseSize } from '@ballast/shared/cli';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { MIN_BANDWIDTH, parseAddress } from '@ballast/shared/transport';
import { Option, type Command } from 'commander';
import { parseChannels } from './channels-option.js';
import { CompressionChoice } from '../compression/choice.js';
import { STRATEGY_NAMES, type StrategyName } from '../strategy.js';
import { REPORT_FORMAT_NAMES, reportFormatOf } from '../trial/report/format-names.js';

/** Runs of each combination at most: a day has no more. */
const MOST_RUNS = 1000;

/** The options of `ballast-send trial` that no other command has. */
export function addTrialOptions(command: Command): void {
  command
    .option('--to <HOST:PORT>', 'where ballast-receive --sink --keep-listening listens', (text: string) =>
      parseAddress(text, 1),
    )
    .addOption(
      new Option('--strategies <NAMES>', 'which to compare, separated by commas')
        .argParser(parseStrategies)
        .default(STRATEGY_NAMES, STRATEGY_NAMES.join(',')),
    )
    .option(
      '--bandwidths <RATES>',
      'with which caps, such as 1Gbit,10Gbit,unlimited (default: unlimited; with --predict 1Gbit,10Gbit)',
      (text: string) => list(text).map((rate) => parseRate(rate, MIN_BANDWIDTH)),
    )
    .option('--channels <NUMBERS>', 'with how many, such as 1,2 or auto (default: 1)', (text: string) =>
      list(text)
        .map(parseChannels)
        .map((channels) => (channels === 'auto' ? undefined : channels)),
    )
    .option('--compress <HOWS>', 'compressed how, such as none,zstd (default: none)', parseCompress)
    .option('--runs <N>', 'how often each combination is measured', (text: string) => whole(text, 1, MOST_RUNS), 5)
    .option('--seed <N>', 'the order of the runs, to do them again (default: a new one)', (text: string) =>
      whole(text, 0, 2 ** 32 - 1),
    )
    .option('--report <FILE>', 'write a report, .html, .md, .csv or .json; more than once for several', collectReport)
    .option('--predict', 'measure nothing over a link, and say what to expect of one')
    .option('--memory <SIZE>', 'with --predict, without a file: how large the memory is', parseSize)
    .option('--in-use <SHARE>', 'with --predict, without a file: how much of it holds data, such as 25% or 4GiB', share)
    .option('--zero <SHARE>', 'with --predict, without a file: how much is zero and not ballooned out', share, 0)
    .option('--page-size <BYTES>', 'with --predict: bytes of a page', (text: string) => whole(text, 512, 2 ** 30), 4096)
    .option('--header-size <BYTES>', 'with --predict: bytes of a whiteout', (text: string) => whole(text, 0, 4096), 9)
    .option(
      '--scan-rate <RATE>',
      'with --predict: how fast memory is scanned (default: as this machine reads and scans)',
      (text) => parseRate(text, 1),
    )
    .option(
      '--round-trip <SECONDS>',
      'with --predict: from a question to its answer',
      (text) => parseSeconds(text),
      0.0005,
    );
}

function list(text: string): string[] {
  return text.split(',').map((word) => word.trim());
}

function parseStrategies(text: string): readonly StrategyName[] {
  return list(text).map((word) => {
    const name = STRATEGY_NAMES.find((known) => known === word);
    if (name === undefined)
      throw new BallastError(ErrorCode.USAGE, `'${word}' is no strategy; expected some of ${STRATEGY_NAMES.join(',')}`);
    return name;
  });
}

function parseCompress(text: string): CompressionChoice[] {
  return list(text).map((word) => {
    const how = Object.values(CompressionChoice).find((known) => known === word);
    if (how === undefined)
      throw new BallastError(
        ErrorCode.USAGE,
        `'${word}' is no compression; expected some of ${Object.values(CompressionChoice).join(',')}`,
      );
    return how;
  });
}

function whole(text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw new BallastError(
    ErrorCode.USAGE,
    `'${text}' is out of range; expected a whole number from ${least} to ${most}`,
  );
}

/** A share, 0 to 1, or a size where it is more. */
function share(text: string): number {
  const percent = /^(\d+|\d*\.\d+)\s*%$/.exec(text.trim());
  const value =
    percent === null ? (/^0?\.\d+$/.test(text.trim()) ? Number(text) : parseSize(text)) : Number(percent[1]) / 100;
  if (percent !== null && value > 1)
    throw new BallastError(ErrorCode.USAGE, `'${text}' is more than all of the memory`);
  return value;
}

function collectReport(path: string, previous: readonly string[] | undefined): readonly string[] {
  checkReportEnding(path);
  return [...(previous ?? []), path];
}

/** @throws BallastError USAGE where no report has the ending of `path` */
export function checkReportEnding(path: string): void {
  if (reportFormatOf(path) === undefined) {
    const endings = REPORT_FORMAT_NAMES.map((ending) => `.${ending}`);
    throw new BallastError(
      ErrorCode.USAGE,
      `'${path}' has no ending that is known; expected one of ${endings.join(', ')}`,
    );
  }
}
