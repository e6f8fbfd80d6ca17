import { BallastError, ErrorCode } from '@ballast/shared/errors';
import {
  describeResult,
  formatBytes,
  formatDuration,
  formatRate,
  printable,
  type ActionContext,
} from '@ballast/shared/cli';
import type { LiveResult, MoveForecast } from '@ballast/shared/events';
import { formatAddress } from '@ballast/shared/transport';
import { forecastMove, moveGuest } from '../live/move-guest.js';
import { checkWrittenFile } from './written-file.js';
import { channelsOption, showEvent, tlsOptions, writeReport, type SendCliOptions } from './send.js';

/** `ballast-send --qmp SOCKET --to HOST:PORT` */
export async function runMove(
  qmp: string,
  options: SendCliOptions,
  { args: files, output, signal }: ActionContext,
): Promise<void> {
  const { to, report, record, downtimeLimit, maxRounds, onNoConvergence, sourceAfter } = options;
  const usage = (message: string): BallastError => new BallastError(ErrorCode.USAGE, message);
  if (files.length > 0) throw usage('with --qmp the memory files are found over QMP; leave out the file names');
  if (options.balloon?.some(({ kind }) => kind !== 'holes') === true) {
    throw usage(
      "with --qmp the balloon map is what the memory's holes say at each moment; a map made before is out of date: leave out --balloon",
    );
  }
  if (options.strategy !== 'bitmap')
    throw usage(`--strategy ${options.strategy} is for paused memory; a live move knows only bitmap`);
  if (options.checkSource === true || options.read !== undefined)
    throw usage('--check-source and --read are for paused memory; a live move always checks its source after the stop');
  if (options.dryRun === true) {
    const forecast = await forecastMove({ qmp, signal });
    output.event({ event: 'forecast', ...forecast });
    output.print(describeForecast(qmp, forecast).join('\n'));
    return;
  }
  if (to === undefined) throw usage('it is not said where to; add --to HOST:PORT of the waiting ballast-receive');
  const checkReport = (memory: readonly string[]): void => {
    if (report !== undefined) checkWrittenFile('--report', report, memory);
  };
  checkReport([]);
  const result = await moveGuest({
    qmp,
    to,
    compress: options.compress,
    timeoutMs: options.timeout * 1000,
    retryMs: options.retry * 1000,
    ...tlsOptions(options),
    ...channelsOption(options),
    ...(options.bandwidth === undefined ? {} : { bandwidth: options.bandwidth }),
    ...(downtimeLimit === undefined ? {} : { downtimeLimitMs: downtimeLimit }),
    ...(maxRounds === undefined ? {} : { maxRounds }),
    ...(onNoConvergence === undefined ? {} : { onNoConvergence }),
    ...(sourceAfter === undefined ? {} : { sourceAfter }),
    ...(record === undefined ? {} : { record }),
    signal,
    onMemoryFound: checkReport,
    onEvent: (event) => {
      showEvent(output, event);
    },
  });
  output.done(describeMove(`moved the guest of ${printable(qmp, 200)} to ${formatAddress(to)}`, result));
  if (report !== undefined) writeReport(report, result);
}

function describeMove(what: string, result: LiveResult): string[] {
  const { downtimeMs, downtime, rounds } = result;
  const { stopMs, findMs, sendMs, rootMs, stateMs, loadMs, contMs } = downtime;
  const ms = (value: number): string => formatDuration(value / 1000);
  return [
    ...describeResult(what, result),
    `  stood still for ${ms(downtimeMs)}: stop ${ms(stopMs)}, find ${ms(findMs)}, send ${ms(sendMs)}, root ${ms(rootMs)}, state ${ms(stateMs)}, load ${ms(loadMs)}, cont ${ms(contMs)}`,
    `  rounds ${rounds.map(({ sentBytes, seconds }) => `${formatBytes(sentBytes)} in ${formatDuration(seconds)}`).join(', ')}`,
  ];
}

function describeForecast(qmp: string, forecast: MoveForecast): string[] {
  const { memory, running, memoryBytes, residentBytes, dataBytes, balloonActualBytes } = forecast;
  const balloon =
    balloonActualBytes === undefined
      ? 'the guest has no balloon'
      : `the balloon leaves ${formatBytes(balloonActualBytes)} to the guest`;
  return [
    `the guest of ${printable(qmp, 200)} can be moved; it ${running ? 'runs' : 'is paused'}`,
    ...memory.map(({ id, path, bytes }) => `  ${printable(id, 100)}: ${formatBytes(bytes)} in ${printable(path, 200)}`),
    `  ${formatBytes(residentBytes)} of ${formatBytes(memoryBytes)} are no holes, ${formatBytes(dataBytes)} are not zero; ${balloon}`,
    `  one pass over it takes ${formatDuration(forecast.passSeconds)}, and the downtime a little more; the guest changes at most ${formatRate(forecast.changedBytesPerSecond)}`,
  ];
}
