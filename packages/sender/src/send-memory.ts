import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { everyInterval, type SendEvent, type TransferResult } from '@ballast/shared/events';
import { manifestRoot, emptyManifest, type RegionManifest } from '@ballast/shared/integrity';
import { ExtentSet, LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';
import { Dialect, MAX_REGIONS, MAX_RESENDS, type Summary } from '@ballast/shared/protocol';
import { formatAddress, type Address, type Connection } from '@ballast/shared/transport';
import { announceBalloonMap, announcerOf, silentAnnouncer, type AnnounceCounts } from './announcer.js';
import { readBalloonMap, type BalloonMap, type BalloonOrigin } from './balloon/balloon-map.js';
import { checkSource } from './check-source.js';
import { aborted, connectToReceiver } from './connect.js';
import { sendLeaves, type WalkCounts } from './leaf-sender.js';
import { BatchPool } from './page-batch.js';
import { MemorySource, type ReadMethod } from './source/memory-source.js';
import { DEFAULT_STRATEGY, Identify, STRATEGIES, identifyPages, type RegionPlan, type StrategyName } from './strategy.js';

export interface SendOptions {
  /** Memory files of one guest, in the order of the receiver's. They are opened read-only and never changed. */
  readonly files: readonly string[];
  /** Where the receiver listens. */
  readonly to: Address;
  /** Where the balloon map comes from; the union counts. Default: the holes that the filesystem reports, if it does. */
  readonly balloon?: readonly BalloonOrigin[];
  readonly strategy?: StrategyName;
  /** How the source is read. Default: pread. */
  readonly read?: ReadMethod;
  /** Reads the source once more at the end and fails when it is not what was sent. */
  readonly checkSource?: boolean;
  /** Milliseconds without a word from the receiver after which it counts as gone. Default: 30 s. */
  readonly timeoutMs?: number;
  /** Ends the transfer; `sendMemory` then throws ABORTED. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: SendEvent) => void;
}

const DEFAULT_TIMEOUT_MS = 30_000;
/** Batches in use at once: those that the socket holds (4 MiB at most), one being filled, and one to spare. */
const BATCHES = 8;

/**
 * Sends the memory of one guest to a receiver, and returns when the receiver has verified and published it.
 * @throws BallastError with a code of docs/errors.md
 */
export async function sendMemory(options: SendOptions): Promise<TransferResult> {
  checkOptions(options);
  const source = MemorySource.open(options.files, options.read);
  try {
    const balloon = readBalloonMap(source, options.balloon ?? [{ kind: 'auto' }]);
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const connection = await connectToReceiver(options.to, timeoutMs, options.signal);
    const onAbort = (): void => {
      connection.fail(aborted());
    };
    options.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (options.signal?.aborted === true) onAbort();
      const result = await transfer(source, balloon, connection, options);
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
  } finally {
    source.close();
  }
}

/** The sender's side of the dialogue, as the data flows. */
async function transfer(
  source: MemorySource,
  balloon: BalloonMap,
  connection: Connection,
  options: SendOptions,
): Promise<TransferResult> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const wireBytes = (): number => connection.bytesOut + connection.bytesIn;
  const strategyName = options.strategy ?? DEFAULT_STRATEGY;
  const strategy = STRATEGIES[strategyName];

  // Which pages need not even be read, and what the destination may have to hold.
  const plans = identifyPages(strategy.identify, source, balloon);
  await connection.sendControl({
    kind: 'hello',
    regions: source.regions.map((region) => region.bytes),
    dialect: strategy.announce,
    dataBytesAtMost: dataBytesAtMost(source, plans),
  });
  await connection.expect('welcome');
  options.onEvent?.({ event: 'connected', peer: formatAddress(options.to) });

  const announced: AnnounceCounts = { whiteouts: 0, mapBytes: 0 };
  const walked: WalkCounts = { scannedBytes: 0, sentBytes: 0 };
  const toScan = plans.reduce((sum, plan) => sum + plan.scan.bytes, 0);
  let phase = 'send';
  const progress = everyInterval(() => {
    options.onEvent?.({
      event: 'progress',
      phase,
      doneBytes: walked.scannedBytes,
      totalBytes: toScan,
      wireBytes: wireBytes(),
      seconds: seconds(),
    });
  });
  try {
    // The balloon map once, ahead of all pages, unless the dialect has only whiteouts.
    if (strategy.announce !== Dialect.whiteouts) {
      for (const [region, plan] of plans.entries()) await announceBalloonMap(connection, region, plan.free, announced);
    }

    // Every page that may hold something: read, scan, hash, send.
    const manifest = emptyManifest(source.regions.map((region) => region.bytes));
    const pool = new BatchPool(BATCHES);
    for (const [index, region] of source.regions.entries()) {
      await sendLeaves(region, planOf(plans, index).scan, {
        connection,
        pool,
        region: index,
        announcer: announcerOf(strategy.announce, connection, index, region.bytes / PAGE_SIZE, announced),
        manifest: regionOf(manifest, index),
        counts: walked,
      });
    }
    source.regions.forEach((region) => {
      region.checkSize();
    });
    const scannedBytes = walked.scannedBytes;
    if (options.checkSource === true) {
      phase = 'check';
      await checkSource(source, plans, manifest, options.signal);
    }

    // Both roots must be equal; leaves that arrived wrong are sent again, a few times.
    phase = 'verify';
    const dataBytes = manifest.reduce((sum, region) => sum + region.dataBytes, 0);
    const summary = (): Summary => ({
      strategy: strategyName,
      dataBytes,
      zeroBytes: scannedBytes - dataBytes,
      freeBytes: source.bytes - scannedBytes,
      scannedPages: scannedBytes / PAGE_SIZE,
      askedPages: strategy.identify === Identify.ask ? source.bytes / PAGE_SIZE : 0,
      whiteouts: announced.whiteouts,
      mapBytes: announced.mapBytes,
      sentBytes: walked.sentBytes,
      mapDigest: balloon.digest.toString('hex'),
    });
    const root = manifestRoot(manifest);
    for (let attempt = 0; ; attempt++) {
      await connection.sendControl({ kind: 'end', root, summary: summary() });
      const answer = await connection.expect('verified', 'resend');
      if (answer.kind === 'verified') {
        checkRoot(root, answer.root);
        break;
      }
      if (attempt === MAX_RESENDS) {
        throw new BallastError(
          ErrorCode.DIGEST_MISMATCH,
          `${answer.leaves.length} leaves did not arrive as they were sent, ${MAX_RESENDS + 1} times in a row; check the link and the receiver's memory and disk`,
        );
      }
      for (const [index, region] of source.regions.entries()) {
        await sendLeaves(region, leavesAgain(answer.leaves, index, planOf(plans, index)), {
          connection,
          pool,
          region: index,
          announcer: silentAnnouncer,
          manifest: regionOf(manifest, index),
          counts: walked,
        });
      }
    }

    // From here on the file may have its name.
    await connection.sendControl({ kind: 'commit' });
    await connection.expect('published');
    return {
      root: root.toString('hex'),
      memoryBytes: source.bytes,
      ...summary(),
      wireBytes: wireBytes(),
      seconds: seconds(),
    };
  } finally {
    progress.stop();
  }
}

/** The receiver cannot need more room than the source has allocated, nor more than what is not free. */
function dataBytesAtMost(source: MemorySource, plans: readonly RegionPlan[]): number {
  return source.regions.reduce(
    (sum, region, index) => sum + Math.min(planOf(plans, index).scan.bytes, Math.max(region.allocatedBytes, 0)),
    0,
  );
}

/** The pages to scan of the leaves that the receiver wants again. */
function leavesAgain(leaves: readonly (readonly [number, number])[], region: number, plan: RegionPlan): ExtentSet {
  return ExtentSet.of(
    leaves.filter(([index]) => index === region).map(([, leaf]): [number, number] => [leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE]),
  ).intersect(plan.scan);
}

function checkRoot(ours: Buffer, theirs: Uint8Array): void {
  if (ours.equals(theirs)) return;
  throw new BallastError(
    ErrorCode.DIGEST_MISMATCH,
    `the receiver read back another image (root ${Buffer.from(theirs).toString('hex')}) than was sent (${ours.toString('hex')}); nothing was published`,
  );
}

function planOf(plans: readonly RegionPlan[], index: number): RegionPlan {
  return plans[index] ?? { scan: ExtentSet.empty, free: ExtentSet.empty };
}

function regionOf(manifest: readonly RegionManifest[], index: number): RegionManifest {
  const region = manifest[index];
  if (region === undefined) throw new BallastError(ErrorCode.INTERNAL, `there is no region ${index}`);
  return region;
}

function checkOptions(options: SendOptions): void {
  if (options.files.length === 0) {
    throw new BallastError(ErrorCode.USAGE, 'no memory file was given; expected at least one');
  }
  if (options.files.length > MAX_REGIONS) {
    throw new BallastError(ErrorCode.USAGE, `${options.files.length} memory files were given; at most ${MAX_REGIONS} are possible`);
  }
}
