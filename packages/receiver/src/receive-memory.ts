import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { everyInterval, type ReceiveEvent, type TransferResult } from '@ballast/shared/events';
import { manifestRoot } from '@ballast/shared/integrity';
import { Dialect, FrameType, MAX_PAYLOAD, type ControlOf, type Frame } from '@ballast/shared/protocol';
import { DEFAULT_PORT, type Address, type Connection } from '@ballast/shared/transport';
import { Outcome, type Destination } from './destination/destination.js';
import { InPlaceFiles, checkInPlaceFiles } from './destination/in-place-files.js';
import { PartialFiles, checkFinalNames } from './destination/partial-files.js';
import { sink } from './destination/sink.js';
import { Listener, checkExposure, type Caller } from './listener.js';
import { ReceivedRegion } from './received-region.js';

export interface ReceiveOptions {
  /** Files to make, in the order of the sender's. With `sink` they are left alone, and may be none. */
  readonly files: readonly string[];
  /** Default: 127.0.0.1:7700. Port 0 takes any; the event `listening` has the one that was taken. */
  readonly listen?: Address;
  /** Replaces files that exist. */
  readonly force?: boolean;
  /** Writes no file: what arrives is verified and forgotten. */
  readonly sink?: boolean;
  /** Writes into the existing files instead of making new ones. */
  readonly inPlace?: boolean;
  /** Listens beyond loopback without authentication. */
  readonly insecure?: boolean;
  /** Whether to refuse memory that might not fit the filesystem. Default: true. */
  readonly checkSpace?: boolean;
  /** Milliseconds without a word from the sender after which it counts as gone. Default: 30 s. */
  readonly timeoutMs?: number;
  /** Ends the transfer, or the wait for one; `receiveMemory` then throws ABORTED. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ReceiveEvent) => void;
}

const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Waits for a sender, receives the memory of one guest, and returns when it is verified and published.
 * @throws BallastError with a code of docs/errors.md
 */
export async function receiveMemory(options: ReceiveOptions): Promise<TransferResult> {
  checkOptions(options);
  const listener = await openListener(options);
  try {
    return await receiveOne(listener, options);
  } finally {
    await listener.close();
  }
}

/**
 * As `receiveMemory`, but goes on listening: for each sender in turn, `onResult` gets its result, or the error that
 * ended its transfer. Returns only by throwing.
 * @throws BallastError ABORTED by the signal; LISTEN, USAGE
 */
export async function receiveForever(options: ReceiveOptions, onResult: (result: TransferResult | BallastError) => void): Promise<never> {
  checkOptions(options);
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

async function openListener(options: ReceiveOptions): Promise<Listener> {
  const listener = await Listener.open({
    address: options.listen ?? { host: '127.0.0.1', port: DEFAULT_PORT },
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    onStranger: (error) => options.onEvent?.({ event: 'warning', code: error.code, message: error.message }),
  });
  options.onEvent?.({ event: 'listening', ...listener.address });
  return listener;
}

async function receiveOne(listener: Listener, options: ReceiveOptions): Promise<TransferResult> {
  const caller = await listener.nextCaller(options.signal);
  const { connection } = caller;
  const onAbort = (): void => {
    connection.fail(new BallastError(ErrorCode.ABORTED, 'the receiver was interrupted before the transfer was complete'));
  };
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    if (options.signal?.aborted === true) onAbort();
    const destination = openDestination(caller.hello, options);
    const result = await transfer(caller, destination, options);
    options.onEvent?.({ event: 'done', ...result });
    await connection.close();
    return result;
  } catch (error) {
    const reason = BallastError.from(error);
    await connection.abort(reason);
    throw reason;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

/** The receiver's side of the dialogue, as the data flows. Owns `destination`. */
async function transfer({ connection, hello, address }: Caller, destination: Destination, options: ReceiveOptions): Promise<TransferResult> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const wireBytes = (): number => connection.bytesIn + connection.bytesOut;
  const regions = destination.stores.map((store, index) => new ReceivedRegion(index, store, destination.readsBack));
  const memoryBytes = regions.reduce((sum, region) => sum + region.store.bytes, 0);
  const scratch = Buffer.alloc(destination.readsBack ? MAX_PAYLOAD[FrameType.leaves] : 0);

  const progress = everyInterval(() => {
    options.onEvent?.({
      event: 'progress',
      phase: 'receive',
      doneBytes: regions.reduce((sum, region) => sum + region.coveredBytes, 0),
      totalBytes: memoryBytes,
      wireBytes: wireBytes(),
      seconds: seconds(),
    });
  });
  let outcome: Outcome = Outcome.failed;
  try {
    await connection.sendControl({ kind: 'welcome', holds: false });
    options.onEvent?.({ event: 'connected', peer: address });

    // Frames until the sender says that it is done, and that nothing arrived wrong.
    const end = await receiveFrames(connection, hello.dialect, regions, scratch, options);

    // What the files hold now, read back leaf by leaf, must be what the sender has.
    for (const region of regions) region.checkComplete();
    destination.checkNothingElse(regions.map((region) => region.manifest));
    const root = manifestRoot(regions.map((region) => region.manifest));
    if (!root.equals(end.root)) {
      throw new BallastError(
        ErrorCode.DIGEST_MISMATCH,
        `what was written here (root ${root.toString('hex')}) is not what the sender has (${Buffer.from(end.root).toString('hex')}); nothing was published`,
      );
    }
    await destination.sync();
    await connection.sendControl({ kind: 'verified', root });

    await connection.expect('commit');
    await destination.publish();
    outcome = Outcome.published;
    await connection.sendControl({ kind: 'published' });
    return { root: root.toString('hex'), memoryBytes, ...end.summary, wireBytes: wireBytes(), seconds: seconds() };
  } finally {
    progress.stop();
    destination.close(outcome);
  }
}

/** Applies frames as they come, and asks again for leaves that arrived wrong. Returns the last `end`. */
async function receiveFrames(
  connection: Connection,
  dialect: Dialect,
  regions: readonly ReceivedRegion[],
  scratch: Buffer,
  options: ReceiveOptions,
): Promise<ControlOf<'end'>> {
  for (;;) {
    const { control, frame } = await connection.next();
    if (frame !== undefined) {
      applyFrame(frame, dialect, regions, scratch, options);
      continue;
    }
    if (control.kind !== 'end') throw new BallastError(ErrorCode.PROTOCOL, `the sender sent '${control.kind}' in the middle of the memory`);
    const leaves = regions.flatMap((region, index) => region.wrongLeaves.map((leaf): [number, number] => [index, leaf]));
    if (leaves.length === 0) return control;
    await connection.sendControl({ kind: 'resend', leaves: leaves.slice(0, 1024) });
  }
}

function applyFrame(
  frame: Frame,
  dialect: Dialect,
  regions: readonly ReceivedRegion[],
  scratch: Buffer,
  options: ReceiveOptions,
): void {
  const { type, region: index } = frame.header;
  const region = regions[index];
  if (region === undefined) throw new BallastError(ErrorCode.PROTOCOL, `the sender speaks of memory file ${index}, and there are ${regions.length}`);
  if (!ALLOWED[dialect].includes(type)) {
    throw new BallastError(ErrorCode.PROTOCOL, `the sender sent a frame of type ${type}, which the dialect '${dialect}' does not have`);
  }
  switch (type) {
    case FrameType.leaves:
      for (const leaf of region.applyLeaves(frame, scratch)) {
        options.onEvent?.({
          event: 'warning',
          code: ErrorCode.DIGEST_MISMATCH,
          message: `leaf ${leaf} of memory file ${index} arrived damaged; it will be asked for again`,
        });
      }
      return;
    case FrameType.whiteouts:
      region.applyWhiteouts(frame);
      return;
    default:
      region.applyRanges(frame);
      return;
  }
}

/** Which bulk frames a stream of each dialect may hold. */
const ALLOWED: Readonly<Record<Dialect, readonly FrameType[]>> = {
  [Dialect.whiteouts]: [FrameType.leaves, FrameType.whiteouts],
  [Dialect.map]: [FrameType.leaves, FrameType.whiteouts, FrameType.freeRanges],
  [Dialect.ranges]: [FrameType.leaves, FrameType.zeroRanges, FrameType.freeRanges],
};

/** @throws BallastError MISMATCH and all that opening a destination throws */
function openDestination(hello: ControlOf<'hello'>, options: ReceiveOptions): Destination {
  const { regions, dataBytesAtMost } = hello;
  if (options.sink === true) return sink(regions);
  if (regions.length !== options.files.length) {
    throw new BallastError(
      ErrorCode.MISMATCH,
      `the sender has ${regions.length} memory file(s) and the receiver was given ${options.files.length} name(s); give as many on both sides, in the same order`,
    );
  }
  const neededBytes = options.checkSpace === false ? undefined : dataBytesAtMost;
  if (options.inPlace === true) return InPlaceFiles.open(options.files, regions, neededBytes);
  return PartialFiles.open({ paths: options.files, regionBytes: regions, force: options.force === true, neededBytes });
}

/** All that can be refused before anyone connects. */
function checkOptions(options: ReceiveOptions): void {
  const { files, listen } = options;
  const usage = (message: string): BallastError => new BallastError(ErrorCode.USAGE, message);
  if (options.sink === true && options.inPlace === true) throw usage('--sink writes no file and --in-place writes into one; choose one of them');
  if (options.sink !== true && files.length === 0) throw usage('no file was given; expected a name for each memory file of the sender, or --sink');
  if (options.inPlace === true && options.force === true) throw usage('--in-place writes into a file that exists, and --force replaces it; choose one of them');
  if (new Set(files).size !== files.length) throw usage('a file was given twice; each memory file of the sender needs a name of its own');
  if (listen !== undefined) checkExposure(listen, options.insecure === true);
  if (options.sink === true) return;
  if (options.inPlace === true) checkInPlaceFiles(files);
  else checkFinalNames(files, options.force === true);
}

