import { randomBytes } from 'node:crypto';
import type { Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { everyInterval, type SendEvent, type TransferResult } from '@ballast/shared/events';
import { emptyManifest, manifestRoot, type Manifest, type RegionManifest } from '@ballast/shared/integrity';
import { Cause, SideMeasurement, type Account, type Machine } from '@ballast/shared/measure';
import { ExtentSet, LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';
import { MAX_CHANNELS, MAX_REGIONS, SESSION_SIZE, decodeAccount, type Summary } from '@ballast/shared/protocol';
import {
  MIN_BANDWIDTH,
  checkAddress,
  checkPatience,
  formatAddress,
  isLoopback,
  readTlsIdentity,
  type Address,
  type Connection,
  type TlsDialOptions,
} from '@ballast/shared/transport';
import { silentAnnouncer, type AnnounceCounts } from './announcer.js';
import { readBalloonMap, type BalloonMap, type BalloonOrigin } from './balloon/balloon-map.js';
import { checkSource } from './check-source.js';
import { channelsFor } from './channel/channel-count.js';
import { PassGauges } from './pass-gauges.js';
import { CompressionChoice, agreedCompressions, checkCompression, compressionTerms } from './compression/choice.js';
import { aborted, connectToReceiver } from './connect.js';
import { FullPass } from './full-pass.js';
import { sendLeaves, type WalkCounts } from './leaf-sender.js';
import { withRetries, type Attempts } from './retry.js';
import { MemorySource, type ReadMethod } from './source/memory-source.js';
import {
  DEFAULT_STRATEGY,
  Identify,
  STRATEGIES,
  identifyPages,
  type RegionPlan,
  type StrategyName,
} from './strategy.js';

export interface SendOptions {
  /** Memory files of one guest, in the order of the receiver's. They are opened read-only and never changed. */
  readonly files: readonly string[];
  /** Where the receiver listens. */
  readonly to: Address;
  /** Where the balloon map comes from; the union counts. Default: the holes that the filesystem reports, if it does. */
  readonly balloon?: readonly BalloonOrigin[];
  readonly strategy?: StrategyName;
  /**
   * Connections that carry pages, each in a thread of its own; 1 for none but the session's. Default: as many as the
   * machine and the memory have use for.
   */
  readonly channels?: number;
  /** How the source is read. Default: pread. */
  readonly read?: ReadMethod;
  /**
   * Bytes a second that are sent at most, over all connections together and without bursts: bytes of the TCP stream, as
   * iperf3 counts them. At least MIN_BANDWIDTH. Default: Infinity.
   */
  readonly bandwidth?: number;
  /**
   * Whether leaves are compressed on the wire; `auto` for as long as that makes the transfer faster. Not all of the
   * sizes of what is compressed are secret to whoever listens in, TLS or not. Default: none.
   */
  readonly compress?: CompressionChoice;
  /** Reads the source once more at the end and fails when it is not what was sent. */
  readonly checkSource?: boolean;
  /** TLS 1.3 with the files of a directory as QEMU names them: ca-cert.pem, client-cert.pem, client-key.pem. */
  readonly tls?: {
    readonly directory: string;
    /** The name that the receiver's certificate must be for. Default: the host in `to`. */
    readonly hostname?: string;
  };
  /** Milliseconds without a word from the receiver after which it counts as gone. Default: 30 s. */
  readonly timeoutMs?: number;
  /** Milliseconds for which a connection that broke is tried again, counted anew after each that got on. Default: 60 s. */
  readonly retryMs?: number;
  /** Ends the transfer; `sendMemory` then throws ABORTED. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: SendEvent) => void;
  /** Told at the end where the time of both sides went. Both measure it only if it is given. */
  readonly onMeasured?: (measured: TransferMeasurement) => void;
}

/** What measuring a transfer gives, beside its result. */
export interface TransferMeasurement {
  readonly sender: Account;
  readonly receiver: Account;
  readonly receiverMachine: Machine;
  /** Bytes of leaf records on the wire: digests, masks, places. */
  readonly tableBytes: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_RETRY_MS = 60_000;
/**
 * Milliseconds that one attempt to get back to a receiver takes at most. The kernel asks a silent host again after
 * pauses that double; a new attempt asks at once, while the receiver still waits.
 */
const RECONNECT_MS = 4000;
/** Rounds of sending leaves again; each leaf of them may fail a few times, and the receiver counts those. */
const MAX_RESEND_ROUNDS = 64;

/**
 * Sends the memory of one guest to a receiver, and returns when the receiver has verified and published it. A
 * connection that breaks is made again, and the transfer goes on from what the receiver holds by then.
 * @throws BallastError with a code of docs/errors.md
 */
export async function sendMemory(options: SendOptions): Promise<TransferResult> {
  checkOptions(options);
  const measurement = options.onMeasured && new SideMeasurement();
  measurement?.stopwatch.switchTo(Cause.agree);
  const source = MemorySource.open(options.files, options.read);
  try {
    measurement?.stopwatch.switchTo(Cause.askMap);
    const balloon = readBalloonMap(source, options.balloon ?? [{ kind: 'auto' }]);
    measurement?.stopwatch.switchTo(Cause.agree);
    const session = new Session(source, balloon, options, measurement);
    const result = await withRetries(session, {
      retryMs: options.retryMs ?? DEFAULT_RETRY_MS,
      signal: options.signal,
      onRetry: (event) => options.onEvent?.(event),
    });
    options.onEvent?.({ event: 'done', ...result });
    return result;
  } finally {
    source.close();
  }
}

/** One transfer over as many connections as it takes. */
class Session implements Attempts<TransferResult> {
  /** Whether a receiver ever welcomed it. */
  accepted = false;
  readonly #token = randomBytes(SESSION_SIZE);
  readonly #started = performance.now();
  readonly #source: MemorySource;
  readonly #balloon: BalloonMap;
  readonly #options: SendOptions;
  readonly #strategyName: StrategyName;
  readonly #tls: TlsDialOptions | undefined;
  readonly #measurement: SideMeasurement | undefined;
  /** What all connections together have cost. */
  readonly #announced: AnnounceCounts = { whiteouts: 0, mapBytes: 0 };
  readonly #walked: WalkCounts = new PassGauges();
  #earlierWireBytes = 0;
  /** Bytes of pages that were scanned on the connection that got furthest: where nothing differs, nothing is sent. */
  #furthest = 0;
  /** On the connection at hand. */
  #pass: FullPass | undefined;
  /** Whether there was no room for channels before: what is begun again goes over one connection. */
  #hasNoRoom = false;
  /** The result, from the moment on at which the receiver may have published. */
  #committed: ((connection: Connection) => TransferResult) | undefined;

  constructor(
    source: MemorySource,
    balloon: BalloonMap,
    options: SendOptions,
    measurement: SideMeasurement | undefined,
  ) {
    this.#measurement = measurement;
    this.#source = source;
    this.#balloon = balloon;
    this.#options = options;
    this.#strategyName = options.strategy ?? DEFAULT_STRATEGY;
    const { tls } = options;
    this.#tls = tls && {
      identity: readTlsIdentity(tls.directory, 'client'),
      ...(tls.hostname === undefined ? {} : { hostname: tls.hostname }),
    };
  }

  get #compress(): CompressionChoice {
    return this.#options.compress ?? CompressionChoice.none;
  }

  get #bandwidth(): number {
    return this.#options.bandwidth ?? Infinity;
  }

  get progress(): number {
    return this.#furthest + this.#walked.sentBytes + (this.#pass?.sentBytes ?? 0);
  }

  /** @throws BallastError why the connection, or the transfer, ended */
  async attempt(): Promise<TransferResult> {
    const { signal } = this.#options;
    const connection = await this.#connect();
    const onAbort = (): void => {
      connection.fail(aborted());
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted === true) onAbort();
      if (Number.isFinite(this.#bandwidth)) await connection.pace(this.#bandwidth);
      const result = await this.#transfer(connection);
      await connection.close();
      return result;
    } catch (error) {
      const reason = BallastError.from(error);
      await Promise.all([connection.abort(reason), this.#pass?.close(reason)]);
      throw this.#committed === undefined ? reason : unacknowledged(reason);
    } finally {
      this.#earlierWireBytes += connection.bytesOut + connection.bytesIn;
      this.#furthest = Math.max(this.#furthest, this.#walked.scannedBytes);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async #connect(): Promise<Connection> {
    const { to, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = this.#options;
    try {
      const connectMs = this.accepted ? Math.min(timeoutMs, RECONNECT_MS) : timeoutMs;
      return await connectToReceiver(to, { connectMs, timeoutMs, tls: this.#tls, signal });
    } catch (error) {
      throw this.#committed === undefined ? error : unacknowledged(BallastError.from(error));
    }
  }

  /** The sender's side of the dialogue, as the data flows. */
  async #transfer(connection: Connection): Promise<TransferResult> {
    const { regions } = this.#source;
    const regionBytes = regions.map((region) => region.bytes);
    const strategy = STRATEGIES[this.#strategyName];

    // Which pages need not even be read, and what the destination may have to hold.
    const measurement = this.#measurement;
    if (measurement !== undefined) {
      connection.stopwatch = measurement.stopwatch;
      await connection.sendControl({ kind: 'measure' });
    }
    const { stopwatch } = connection;
    stopwatch.switchTo(Cause.askMap);
    const plans = identifyPages(strategy.identify, this.#source, this.#balloon);
    stopwatch.switchTo(Cause.agree);
    this.#hasNoRoom ||= this.#pass?.foundNoRoom === true;
    const asked = channelsFor(this.#hasNoRoom ? 1 : this.#options.channels, {
      plans,
      sharesCores: isLoopback(this.#options.to.host),
      bandwidth: this.#bandwidth,
    });
    const terms = compressionTerms(this.#compress);
    await connection.sendControl({
      kind: 'hello',
      session: this.#token,
      regions: regionBytes,
      dialect: strategy.announce,
      ...terms,
      dataBytesAtMost: dataBytesAtMost(this.#source, plans),
      channels: asked,
      live: false,
    });
    const welcome = await connection.expect('welcome', 'published-before');
    if (welcome.kind === 'published-before') {
      const result = this.#publishedBefore(welcome.root, connection);
      await connection.sendControl({ kind: 'goodbye' });
      return result;
    }
    if (welcome.channels > asked)
      throw new BallastError(ErrorCode.PROTOCOL, `${connection.peer} wants more channels than it was asked for`);
    const compressions = agreedCompressions(terms, welcome);
    this.accepted = true;
    const { holds, channels } = welcome;
    const peer = formatAddress(this.#options.to);
    this.#options.onEvent?.({ event: 'connected', peer, resumes: holds, channels: Math.max(channels, 1) });

    this.#walked.scannedBytes = 0;
    const pass = this.#beginPass(plans, compressions);
    const progress = this.#reportProgress(connection, plans);
    try {
      // Every page that may hold something: read, scan, hash, and send what the destination lacks.
      const manifest = emptyManifest(regionBytes);
      await pass.send(connection, { holds, channels }, manifest);
      const { scannedBytes } = this.#walked;
      if (this.#options.checkSource === true) {
        progress.phase = 'check';
        await checkSource(this.#source, plans, manifest, this.#options.signal);
      }

      // Both roots must be equal; leaves that arrived wrong are sent again, whole.
      progress.phase = 'verify';
      for (let round = 0; ; round++) {
        const root = manifestRoot(manifest);
        await connection.sendControl({ kind: 'end', root, summary: this.#summary(manifest, scannedBytes) });
        const answer = await connection.expect('verified', 'resend');
        if (answer.kind === 'verified') {
          checkRoot(root, answer.root);
          this.#committed = (last) => this.#result(root, manifest, scannedBytes, last);
          break;
        }
        if (round === MAX_RESEND_ROUNDS)
          throw new BallastError(ErrorCode.PROTOCOL, `${connection.peer} never stops asking for leaves again`);
        const again: WalkCounts = new PassGauges();
        for (const [index, region] of regions.entries()) {
          await sendLeaves(region.reads, leavesAgain(answer.leaves, index, planOf(plans, index)), {
            connection,
            pool: pass.pool,
            region: index,
            announcer: silentAnnouncer,
            holdings: undefined,
            manifest: regionOf(manifest, index),
            counts: again,
          });
        }
        this.#walked.sentBytes += again.sentBytes;
        this.#walked.tableBytes += again.tableBytes;
        this.#walked.storedBytes += again.storedBytes;
      }

      // From here on the files may have their names.
      await connection.sendControl({ kind: 'commit' });
      await connection.expect('published');
      if (measurement !== undefined) await this.#receiveAccount(connection, measurement);
      const result = this.#committed(connection);
      await connection.sendControl({ kind: 'goodbye' });
      return result;
    } finally {
      progress.stop();
    }
  }

  /** Both sides' accounts; ours ends when the memory is published. */
  async #receiveAccount(connection: Connection, measurement: SideMeasurement): Promise<void> {
    const sender = measurement.account();
    const { account: receiver, machine } = decodeAccount(await connection.expect('account'));
    const { tableBytes } = this.#walked;
    this.#options.onMeasured?.({ sender, receiver, receiverMachine: machine, tableBytes });
  }

  #beginPass(plans: readonly RegionPlan[], compressions: readonly Compression[]): FullPass {
    const { to, timeoutMs = DEFAULT_TIMEOUT_MS } = this.#options;
    this.#earlierWireBytes += this.#pass?.wireBytes ?? 0;
    this.#pass = new FullPass({
      source: this.#source,
      plans,
      dialect: STRATEGIES[this.#strategyName].announce,
      compress: this.#compress,
      compressions,
      bandwidth: this.#bandwidth,
      to,
      tls: this.#tls,
      timeoutMs,
      session: this.#token,
      measurement: this.#measurement,
      announced: this.#announced,
      walked: this.#walked,
    });
    return this.#pass;
  }

  /** The receiver had published, and its word of it got lost with the connection before. */
  #publishedBefore(root: Uint8Array, connection: Connection): TransferResult {
    const result = this.#committed?.(connection);
    if (result?.root === Buffer.from(root).toString('hex')) return result;
    throw new BallastError(ErrorCode.PROTOCOL, 'the receiver says that it published what was never committed');
  }

  #summary(manifest: Manifest, scannedBytes: number): Summary {
    const dataBytes = manifest.reduce((sum, region) => sum + region.dataBytes, 0);
    const memoryBytes = this.#source.bytes;
    return {
      strategy: this.#strategyName,
      dataBytes,
      zeroBytes: scannedBytes - dataBytes,
      freeBytes: memoryBytes - scannedBytes,
      scannedPages: scannedBytes / PAGE_SIZE,
      askedPages: STRATEGIES[this.#strategyName].identify === Identify.ask ? memoryBytes / PAGE_SIZE : 0,
      ...this.#announced,
      sentBytes: this.#walked.sentBytes,
      storedBytes: this.#walked.storedBytes,
      mapDigest: this.#balloon.digest.toString('hex'),
    };
  }

  #result(root: Buffer, manifest: Manifest, scannedBytes: number, connection: Connection): TransferResult {
    return {
      root: root.toString('hex'),
      memoryBytes: this.#source.bytes,
      ...this.#summary(manifest, scannedBytes),
      wireBytes: this.#wireBytes(connection),
      seconds: this.#seconds(),
    };
  }

  #reportProgress(connection: Connection, plans: readonly RegionPlan[]): { phase: string; stop(): void } {
    const totalBytes = plans.reduce((sum, plan) => sum + plan.scan.bytes, 0);
    const report = {
      phase: 'send',
      ...everyInterval(() => {
        this.#options.onEvent?.({
          event: 'progress',
          phase: report.phase,
          doneBytes: this.#walked.scannedBytes + (this.#pass?.scannedBytes ?? 0),
          totalBytes,
          wireBytes: this.#wireBytes(connection),
          seconds: this.#seconds(),
        });
      }),
    };
    return report;
  }

  #wireBytes(connection: Connection): number {
    return this.#earlierWireBytes + (this.#pass?.wireBytes ?? 0) + connection.bytesOut + connection.bytesIn;
  }

  #seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }
}

/** The connection ended between `commit` and the word of it: nobody here knows whether the files have their names. */
function unacknowledged(error: BallastError): BallastError {
  return new BallastError(
    error.code,
    `the memory was verified and committed, but the receiver did not say that it published it (${error.message}); look there whether the file has its name: if so, it is complete`,
    { cause: error },
  );
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
    leaves
      .filter(([index]) => index === region)
      .map(([, leaf]): [number, number] => [leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE]),
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
  const { channels = 1 } = options;
  if (!Number.isInteger(channels) || channels < 1 || channels > MAX_CHANNELS) {
    throw new BallastError(ErrorCode.USAGE, `${channels} channels were asked for; expected 1 to ${MAX_CHANNELS}`);
  }
  if (options.files.length > MAX_REGIONS) {
    throw new BallastError(
      ErrorCode.USAGE,
      `${options.files.length} memory files were given; at most ${MAX_REGIONS} are possible`,
    );
  }
  checkAddress(options.to, 1);
  checkPatience(options);
  checkCompression(options.compress ?? CompressionChoice.none);
  if (options.bandwidth !== undefined && !(options.bandwidth >= MIN_BANDWIDTH)) {
    throw new BallastError(
      ErrorCode.USAGE,
      `a bandwidth of ${options.bandwidth} bytes a second is too little; expected ${MIN_BANDWIDTH} or more`,
    );
  }
}
