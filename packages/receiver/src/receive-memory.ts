import { resolve } from 'node:path';
import { BallastError, ErrorCode, isRetryable } from '@ballast/shared/errors';
import type { TransferResult } from '@ballast/shared/events';
import { DEFAULT_PORT, checkAddress, checkPatience, readTlsIdentity } from '@ballast/shared/transport';
import { Outcome } from './destination/destination.js';
import { checkInPlaceFiles } from './destination/in-place-files.js';
import { checkFinalNames } from './destination/partial-files.js';
import { Listener, checkExposure } from './listener.js';
import type { IncomingGuest } from './live/incoming-guest.js';
import { openOldCopies } from './old-copy.js';
import { DEFAULT_TIMEOUT_MS, type ReceiveOptions } from './receive-options.js';
import { ReceiveSession } from './receive-session.js';

/**
 * Waits for a sender, receives the memory of one guest, and returns when it is verified and published.
 * @throws BallastError with a code of docs/errors.md
 */
export async function receiveMemory(options: ReceiveOptions): Promise<TransferResult> {
  checkOptions(options);
  // A guest that cannot be received is refused before anyone is invited.
  const guest = options.qmp === undefined ? undefined : await openGuest(options.qmp, options.signal);
  try {
    const listener = await openListener(options);
    try {
      return await receiveOne(listener, options, guest);
    } finally {
      await listener.close();
    }
  } finally {
    guest?.close();
  }
}

/**
 * As `receiveMemory`, but goes on listening: for each sender in turn, `onResult` gets its result, or the error that
 * ended its transfer. Returns only by throwing.
 * @throws BallastError ABORTED by the signal; LISTEN, USAGE
 */
export async function receiveForever(
  options: ReceiveOptions,
  onResult: (result: TransferResult | BallastError) => void,
): Promise<never> {
  checkOptions(options);
  if (options.qmp !== undefined)
    throw new BallastError(ErrorCode.USAGE, 'a waiting QEMU takes one guest in; leave out --keep-listening with --qmp');
  const listener = await openListener(options);
  try {
    for (;;) {
      try {
        onResult(await receiveOne(listener, options));
      } catch (error) {
        if (options.signal?.aborted === true) throw error;
        onResult(BallastError.from(error));
      }
    }
  } finally {
    await listener.close();
  }
}

/** What only a running guest needs is loaded only for one. */
async function openGuest(qmp: string, signal: AbortSignal | undefined): Promise<IncomingGuest> {
  const { IncomingGuest } = await import('./live/incoming-guest.js');
  return await IncomingGuest.open(qmp, signal);
}

async function openListener(options: ReceiveOptions): Promise<Listener> {
  const { tls } = options;
  const listener = await Listener.open({
    tls: tls && { identity: readTlsIdentity(tls.directory, 'server'), allowedNames: tls.allow ?? [] },
    address: options.listen ?? { host: '127.0.0.1', port: DEFAULT_PORT },
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    onStranger: (error) => options.onEvent?.({ event: 'warning', code: error.code, message: error.message }),
  });
  options.onEvent?.({ event: 'listening', ...listener.address });
  return listener;
}

/**
 * One memory, over as many connections as the sender needs. What was received stays open and locked between them, and
 * outlives this process where another try may go on from it.
 */
async function receiveOne(listener: Listener, options: ReceiveOptions, guest?: IncomingGuest): Promise<TransferResult> {
  const patienceMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const session = new ReceiveSession(options, guest);
  try {
    let caller = await listener.nextCaller(options.signal);
    let deadline: number | undefined;
    for (let attempt = 1; caller !== undefined;) {
      try {
        const result = await session.serve(caller, listener);
        options.onEvent?.({ event: 'done', ...result });
        await session.acknowledge(caller, listener, patienceMs);
        session.close(Outcome.published);
        return result;
      } catch (error) {
        const reason = BallastError.from(error);
        const { code, message } = reason;
        const isInterrupted = options.signal?.aborted === true;
        if (session.wasOnlyAsked && !isInterrupted) {
          // Whoever is waited for is waited for as if nobody had come.
          options.onEvent?.({ event: 'warning', code, message: `asked about another move, and went on: ${message}` });
        } else {
          // No other connection gets past a file that another receiver has locked.
          const isOver = !isRetryable(reason) || session.isShutOut || session.isSpoiled;
          if (session.isSpoiled && isRetryable(reason)) await session.disown(listener, patienceMs);
          if (isOver || isInterrupted) throw reason;
          options.onEvent?.({ event: 'retry', code, message, attempt: attempt++, inSeconds: 0 });
          deadline = performance.now() + patienceMs;
        }
      }
      const leftMs = deadline === undefined ? undefined : Math.max(0, deadline - performance.now());
      caller = await listener.nextCaller(options.signal, leftMs);
    }
    throw new BallastError(
      ErrorCode.CONNECTION_LOST,
      `the connection broke, and the sender did not come back within ${patienceMs / 1000} s`,
    );
  } catch (error) {
    const reason = BallastError.from(error);
    const isKept = leavesSomething(reason) || session.hadOtherSender;
    const left = session.close(isKept ? Outcome.interrupted : Outcome.failed);
    if (left === undefined) throw reason;
    throw new BallastError(reason.code, `${reason.message}; ${left}`, { cause: reason });
  }
}

/** Whether a later try could go on from what was received: the error was about the way or the place, not about the memory. */
function leavesSomething(error: BallastError): boolean {
  const { code } = error;
  return (
    isRetryable(error) ||
    code === ErrorCode.ABORTED ||
    code === ErrorCode.NO_SPACE ||
    code === ErrorCode.WRITE ||
    code === ErrorCode.INTERNAL
  );
}

/** All that can be refused before anyone connects. */
function checkOptions(options: ReceiveOptions): void {
  const { files, listen } = options;
  const usage = (message: string): BallastError => new BallastError(ErrorCode.USAGE, message);
  if (listen !== undefined) checkAddress(listen, 0);
  checkPatience(options);
  if (options.sink === true && options.inPlace === true)
    throw usage('--sink writes no file and --in-place writes into one; choose one of them');
  if (options.qmp !== undefined) {
    if (files.length > 0) throw usage('with --qmp the memory files are found over QMP; leave out the file names');
    if (options.sink === true || options.inPlace === true || options.force === true || options.reuse !== undefined)
      throw usage(
        '--qmp writes into the memory of the waiting QEMU; leave out --sink, --in-place, --force and --reuse',
      );
    if (listen !== undefined) checkExposure(listen, options.insecure === true || options.tls !== undefined);
    return;
  }
  if (options.sink !== true && files.length === 0)
    throw usage('no file was given; expected a name for each memory file of the sender, or --sink');
  if (options.inPlace === true && options.force === true)
    throw usage('--in-place writes into a file that exists, and --force replaces it; choose one of them');
  if (new Set(files.map((file) => resolve(file))).size !== files.length)
    throw usage('a file was given twice; each memory file of the sender needs a name of its own');
  const reuse = options.reuse ?? [];
  if (reuse.length > 0 && (options.sink === true || options.inPlace === true))
    throw usage('--reuse makes a new file from an older copy; leave out --sink and --in-place');
  if (reuse.length > 0 && reuse.length !== files.length)
    throw usage(
      `--reuse was given ${reuse.length} time(s) for ${files.length} file(s); give one older copy for each, in the same order`,
    );
  if (listen !== undefined) checkExposure(listen, options.insecure === true || options.tls !== undefined);
  for (const copy of openOldCopies(reuse)) copy.close();
  if (options.sink === true) return;
  if (options.inPlace === true) checkInPlaceFiles(files);
  else checkFinalNames(files, options.force === true);
}
