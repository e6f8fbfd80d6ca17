import { BallastError, ErrorCode, systemReason } from '@ballast/shared/errors';
import { describeResult, printable, type ActionContext, type CommonOptions, type Output } from '@ballast/shared/cli';
import type { SendEvent } from '@ballast/shared/events';
import { formatAddress, type Address } from '@ballast/shared/transport';
import type { BalloonOrigin } from '../balloon/balloon-map.js';
import type { CompressionChoice } from '../compression/choice.js';
import { sendMemory, type SendOptions } from '../send-memory.js';
import type { ReadMethod } from '../source/memory-source.js';
import type { StrategyName } from '../strategy.js';
import type { ChannelsChoice } from './channels-option.js';
import { refuseLiveOptions, type LiveCliOptions } from './live-options.js';
import { checkWrittenFile, writeNamedFile } from './written-file.js';

export interface SendCliOptions extends CommonOptions, LiveCliOptions {
  readonly to?: Address;
  readonly balloon?: readonly BalloonOrigin[];
  readonly strategy: StrategyName;
  readonly channels?: ChannelsChoice;
  readonly read?: ReadMethod;
  readonly bandwidth?: number;
  readonly compress: CompressionChoice;
  readonly checkSource?: boolean;
  readonly timeout: number;
  readonly retry: number;
  readonly tlsDir?: string;
  readonly tlsHostname?: string;
  readonly report?: string;
}

/** `ballast-send FILE… --to HOST:PORT` */
export async function runSend(options: SendCliOptions, context: ActionContext): Promise<void> {
  const { args: files, output, signal } = context;
  const { to, report, qmp } = options;
  if (qmp !== undefined) {
    const { runMove } = await import('./move.js');
    await runMove(qmp, options, context);
    return;
  }
  refuseLiveOptions(options);
  if (files.length === 0)
    throw new BallastError(ErrorCode.USAGE, 'no memory file was given; expected ballast-send FILE --to HOST:PORT');
  if (to === undefined)
    throw new BallastError(
      ErrorCode.USAGE,
      'it is not said where to; add --to HOST:PORT of the waiting ballast-receive',
    );
  if (report !== undefined) checkWrittenFile('--report', report, files);
  const result = await sendMemory({
    files,
    to,
    strategy: options.strategy,
    compress: options.compress,
    checkSource: options.checkSource ?? false,
    timeoutMs: options.timeout * 1000,
    retryMs: options.retry * 1000,
    ...tlsOptions(options),
    signal,
    ...(options.bandwidth === undefined ? {} : { bandwidth: options.bandwidth }),
    ...channelsOption(options),
    ...(options.read === undefined ? {} : { read: options.read }),
    ...(options.balloon === undefined ? {} : { balloon: options.balloon }),
    onEvent: (event) => {
      showEvent(output, event);
    },
  });
  output.done(
    describeResult(`sent ${files.map((file) => printable(file, 200)).join(', ')} to ${formatAddress(to)}`, result),
  );
  if (report !== undefined) writeReport(report, result);
}

export function channelsOption({ channels = 'auto' }: SendCliOptions): Pick<SendOptions, 'channels'> {
  return channels === 'auto' ? {} : { channels };
}

/** @throws BallastError USAGE */
export function tlsOptions({ tlsDir, tlsHostname }: SendCliOptions): Pick<SendOptions, 'tls'> {
  if (tlsHostname !== undefined && tlsDir === undefined) {
    throw new BallastError(
      ErrorCode.USAGE,
      '--tls-hostname names a certificate, and without --tls-dir there is none; add --tls-dir',
    );
  }
  if (tlsDir === undefined) return {};
  return { tls: { directory: tlsDir, ...(tlsHostname === undefined ? {} : { hostname: tlsHostname }) } };
}

/** Tells a program or a person what happens. */
export function showEvent(output: Output, event: SendEvent): void {
  output.event(event);
  if (event.event === 'progress') output.progress(event);
  else if (event.event === 'warning') output.warn(event.message);
  else if (event.event === 'retry') output.warn(`${event.message}; trying again in ${event.inSeconds} s`);
}

export function writeReport(path: string, result: object): void {
  try {
    writeNamedFile(path, `${JSON.stringify(result, null, 2)}\n`);
  } catch (error) {
    throw new BallastError(
      ErrorCode.WRITE,
      `the memory was sent and verified, but the report ${path} cannot be written ${systemReason(error)}`,
      { cause: error },
    );
  }
}
