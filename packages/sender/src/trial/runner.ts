import { setTimeout } from 'node:timers/promises';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import type { Machine } from '@ballast/shared/measure';
import { WHITEOUT_SIZE } from '@ballast/shared/protocol';
import type { ProgressEvent, TransferResult } from '@ballast/shared/events';
import { readTlsIdentity } from '@ballast/shared/transport';
import { connectToReceiver } from '../connect.js';
import { sendMemory, type SendOptions, type TransferMeasurement } from '../send-memory.js';
import { Identify, STRATEGIES } from '../strategy.js';
import type { Cell } from './plan.js';
import { probeLink, type RawLink } from './raw-link.js';
import { mainOf, type RunReport } from './trial-report.js';
import { wireBytes } from './wire-bytes.js';

/** What is the same for all runs of a trial. */
export type RunOptions = Pick<SendOptions, 'files' | 'to' | 'balloon' | 'read' | 'tls' | 'timeoutMs' | 'signal'>;

/** Milliseconds for which a receiver may be busy: it may still be ending the run before. */
const BUSY_GRACE_MS = 5000;
const BUSY_PAUSE_MS = 20;
/** Probes of one frame, before the one that counts, to learn how long a round trip takes when all is warm. */
const SHORT_PROBES = 4;
const DEFAULT_TIMEOUT_MS = 30_000;

/** @throws BallastError with a code of docs/errors.md */
export async function measureLink(options: RunOptions): Promise<RawLink> {
  const roundTrips: number[] = [];
  for (let n = 0; n < SHORT_PROBES; n++) roundTrips.push((await probe(options, 0)).roundTripSeconds);
  const link = await probe(options);
  return { ...link, roundTripSeconds: Math.min(link.roundTripSeconds, ...roundTrips) };
}

async function probe(options: RunOptions, milliseconds?: number): Promise<RawLink> {
  const { to, tls, signal, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const dialTls = tls && {
    identity: readTlsIdentity(tls.directory, 'client'),
    ...(tls.hostname === undefined ? {} : { hostname: tls.hostname }),
  };
  return await whileBusy(async () => {
    const connection = await connectToReceiver(to, { connectMs: timeoutMs, timeoutMs, tls: dialTls, signal });
    const onAbort = (): void => {
      connection.fail(new BallastError(ErrorCode.ABORTED, 'the trial was interrupted'));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted === true) onAbort();
      return await probeLink(connection, milliseconds);
    } catch (error) {
      const reason = BallastError.from(error);
      await connection.abort(reason);
      throw reason;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  });
}

/**
 * One transfer, from opening the memory file to the receiver's word that it is published. A connection that breaks is
 * not made again: a run that was interrupted measures nothing.
 * @throws BallastError with a code of docs/errors.md
 */
export async function measureRun(
  cell: Cell,
  round: number,
  options: RunOptions,
  onProgress: (progress: ProgressEvent) => void,
): Promise<{ run: RunReport; receiver: Machine }> {
  const { strategy, bandwidth, channels, compress } = cell;
  const { files, to, balloon, read, tls, timeoutMs, signal } = options;
  const knowsBalloon = STRATEGIES[strategy].identify === Identify.ask;
  return await whileBusy(async () => {
    let measured: TransferMeasurement | undefined;
    const result = await sendMemory({
      files,
      to,
      ...(read && { read }),
      ...(tls && { tls }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(signal && { signal }),
      strategy,
      compress,
      // Who scans everything does not read the map either.
      balloon: knowsBalloon ? (balloon ?? [{ kind: 'auto' }]) : [{ kind: 'none' }],
      ...(bandwidth === undefined ? {} : { bandwidth }),
      ...(channels === undefined ? {} : { channels }),
      retryMs: 0,
      onEvent(event) {
        if (event.event === 'progress') onProgress(event);
      },
      onMeasured(measurement) {
        measured = measurement;
      },
    });
    if (measured === undefined) throw new BallastError(ErrorCode.INTERNAL, 'a transfer ended without its measurement');
    return { run: runReport(round, result, measured), receiver: measured.receiverMachine };
  });
}

function runReport(
  round: number,
  result: TransferResult,
  { sender, receiver, tableBytes: hashes }: TransferMeasurement,
): RunReport {
  const whiteouts = WHITEOUT_SIZE * result.whiteouts;
  const control = result.wireBytes - result.storedBytes - hashes - whiteouts - result.mapBytes;
  return {
    round,
    channels: Math.max(1, sender.threads.length - 1),
    seconds: mainOf(sender).seconds,
    wire: wireBytes({ data: result.storedBytes, hashes, whiteouts, map: result.mapBytes, control }),
    whiteoutPages: result.whiteouts,
    scannedPages: result.scannedPages,
    askedPages: result.askedPages,
    sender,
    receiver,
  };
}

/** Tries again for as long as the receiver is busy with what came before. */
async function whileBusy<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + BUSY_GRACE_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof BallastError && error.code === ErrorCode.BUSY) || performance.now() > deadline)
        throw error;
      await setTimeout(BUSY_PAUSE_MS);
    }
  }
}
