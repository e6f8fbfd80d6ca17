import { randomBytes } from 'node:crypto';
import type { Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode, isRetryable } from '@ballast/shared/errors';
import {
  everyInterval,
  type LiveResult,
  type LiveRound,
  type MoveForecast,
  type SendEvent,
} from '@ballast/shared/events';
import { manifestRoot } from '@ballast/shared/integrity';
import { ExtentSet, LEAF_SIZE, PAGE_SIZE, tryLock } from '@ballast/shared/memory';
import { Dialect, FrameType, MAX_PAYLOAD, SESSION_SIZE, type Summary } from '@ballast/shared/protocol';
import {
  checkAddress,
  checkPatience,
  formatAddress,
  isLoopback,
  readTlsIdentity,
  type Address,
  type Connection,
  type TlsDialOptions,
} from '@ballast/shared/transport';
import type { AnnounceCounts } from '../announcer.js';
import { readBalloonMap, type BalloonMap } from '../balloon/balloon-map.js';
import { CompressionChoice, agreedCompressions, checkCompression, compressionTerms } from '../compression/choice.js';
import { channelsFor } from '../channel/channel-count.js';
import { PassGauges } from '../pass-gauges.js';
import { aborted, connectToReceiver } from '../connect.js';
import { FullPass } from '../full-pass.js';
import type { WalkCounts } from '../leaf-sender.js';
import type { BatchPool } from '../page-batch.js';
import { withRetries, type Attempts } from '../retry.js';
import { MemorySource } from '../source/memory-source.js';
import type { RegionPlan } from '../strategy.js';
import { askDestination, DestinationWord } from './ask-destination.js';
import type { NoConvergenceAction, SourceAfter } from './choices.js';
import { Convergence } from './convergence.js';
import { changedAtMost, sampleOf } from './sample.js';
import { LeafDigester } from './leaf-digests.js';
import { MoveStage, readRecord, recordPath, removeRecord, writeRecord } from './record.js';
import { SentRegion, type RegionChanges } from './sent-memory.js';
import { SourceGuest, processStart } from './source-guest.js';
import { Throttle } from './throttle.js';

export interface MoveOptions {
  /** The monitor of the guest's QEMU: the path of its socket. */
  readonly qmp: string;
  /** Where the receiver of the waiting QEMU listens. */
  readonly to: Address;
  /** Milliseconds that the guest may stand still. Default: 300. */
  readonly downtimeLimitMs?: number;
  /** Rounds at most, the first included. Default: 30. */
  readonly maxRounds?: number;
  /** Default: switch, with a downtime beyond the limit. */
  readonly onNoConvergence?: NoConvergenceAction;
  /** Default: pause. */
  readonly sourceAfter?: SourceAfter;
  /** Threads that find out what has changed. Default: 2. */
  readonly threads?: number;
  /** As in SendOptions; for the first round. */
  readonly channels?: number;
  /** Bytes a second that the connection may take. Default: no limit. */
  readonly bandwidth?: number;
  /** As in SendOptions. */
  readonly compress?: CompressionChoice;
  /** Where the record for `recoverGuest` is kept. Default: in the runtime folder, named after the monitor. */
  readonly record?: string;
  readonly tls?: { readonly directory: string; readonly hostname?: string };
  /** As in SendOptions. */
  readonly timeoutMs?: number;
  /** Milliseconds for which a connection that breaks before the guest is stopped is tried again. Default: 60 s. */
  readonly retryMs?: number;
  readonly signal?: AbortSignal;
  /** Told the guest's memory files before anyone is called; what it throws ends the move. */
  readonly onMemoryFound?: (files: readonly string[]) => void;
  readonly onEvent?: (event: SendEvent) => void;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_RETRY_MS = 60_000;
const DEFAULT_DOWNTIME_MS = 300;
const DEFAULT_MAX_ROUNDS = 30;
const DEFAULT_THREADS = 2;
/**
 * The round in which hints of what was sent are made, so that from then on only changed pages of a leaf travel: an idle
 * guest is gone before, and pays nothing for them.
 */
const HINTS_ROUND = 3;
/** Rounds of sending leaves again after the end. */
const MAX_RESEND_ROUNDS = 64;
const NO_CHANGES: RegionChanges = { changed: ExtentSet.empty, emptied: ExtentSet.empty };
/** Bytes below which a round says nothing about the rate of the link. */
const TELLING_BYTES = 8 << 20;
/** Bytes a second that a link is believed to carry until a round has shown more, or less. */
const ASSUMED_RATE = 100 << 20;

/**
 * Moves a running guest to a QEMU that waits for it, and returns when it runs there. If that fails before it is committed
 * the guest goes on here, as if nothing had been; docs/live.md has what happens at each moment.
 * @throws BallastError with a code of docs/errors.md
 */
export async function moveGuest(options: MoveOptions): Promise<LiveResult> {
  checkAddress(options.to, 1);
  checkPatience(options);
  checkCompression(options.compress ?? CompressionChoice.none);
  const record = options.record ?? recordPath(options.qmp);
  refuseUnfinished(record, options.qmp);
  const guest = await SourceGuest.open(options.qmp, options.signal);
  try {
    // Whoever had the monitor before may have left one.
    refuseUnfinished(record, options.qmp);
    const files = guest.memory.files.map(({ path }) => path);
    options.onMemoryFound?.(files);
    const source = MemorySource.open(files);
    const digester = new LeafDigester(source, options.threads ?? DEFAULT_THREADS);
    try {
      claim(source, options.qmp);
      const move = new LiveMove(options, guest, source, digester, record);
      const result = await move.run();
      options.onEvent?.({ event: 'done', ...result });
      return result;
    } finally {
      await digester.close();
      source.close();
    }
  } finally {
    guest.close();
  }
}

/**
 * Looks at a guest as `moveGuest` would, reads all of its memory twice, and tells what a move would cost. Nothing is
 * changed, set or sent.
 * @throws BallastError as `moveGuest`; ABORTED by the signal
 */
export async function forecastMove({
  qmp,
  threads,
  signal,
}: Pick<MoveOptions, 'qmp' | 'threads' | 'signal'>): Promise<MoveForecast> {
  const guest = await SourceGuest.open(qmp, signal);
  try {
    const source = MemorySource.open(guest.memory.files.map(({ path }) => path));
    const digester = new LeafDigester(source, threads ?? DEFAULT_THREADS);
    const onAbort = (): void => {
      digester.stop(aborted());
    };
    signal?.addEventListener('abort', onAbort);
    try {
      const sent = source.regions.map((region) => new SentRegion(region));
      const look = async (): ReturnType<typeof findChanges> => {
        if (signal?.aborted === true) throw aborted();
        return await findChanges(source, digester, sent, false);
      };
      const first = await look();
      for (const [index, region] of sent.entries())
        for (const { leaf, mask, digest } of first.pass.leavesOf(index)) region.manifest.set(leaf, mask, digest);
      const dataBytes = sent.reduce((sum, { manifest }) => sum + manifest.dataBytes, 0);
      const began = performance.now();
      const second = await look();
      const changedBytes = second.changes.reduce((sum, { changed }) => sum + changed.bytes, 0);
      return {
        memory: guest.memory.files.map(({ id, path, bytes }) => ({ id, path, bytes })),
        running: guest.runs,
        memoryBytes: source.bytes,
        residentBytes: first.scans.reduce((sum, scan) => sum + scan.bytes, 0),
        dataBytes,
        ...(guest.balloonActualBytes === undefined ? {} : { balloonActualBytes: guest.balloonActualBytes }),
        passSeconds: second.pass.seconds,
        changedBytesPerSecond: changedBytes / ((performance.now() - began) / 1000),
      };
    } finally {
      signal?.removeEventListener('abort', onAbort);
      await digester.close();
      source.close();
    }
  } finally {
    guest.close();
  }
}

/** A pass over memory, and what differs from what was sent. */
async function findChanges(
  source: MemorySource,
  digester: LeafDigester,
  sent: readonly SentRegion[],
  withHints: boolean,
): Promise<{
  balloon: BalloonMap;
  scans: ExtentSet[];
  pass: Awaited<ReturnType<LeafDigester['digest']>>;
  changes: RegionChanges[];
  seconds: number;
}> {
  const began = performance.now();
  // The balloon may have moved: what it takes out is read anew each time.
  const balloon = readBalloonMap(source, [{ kind: 'holes' }]);
  const scans = scansOf(source, balloon);
  const pass = await digester.digest(scans, withHints);
  const changes = sent.map((region, index) => region.changes(pass.leavesOf(index), scans[index] ?? ExtentSet.empty));
  const comparing = (performance.now() - began) / 1000 - pass.seconds;
  return { balloon, scans, pass, changes, seconds: pass.seconds + Math.max(0, withHints ? 0 : comparing) };
}

function bytesIn(extents: readonly ExtentSet[]): number {
  return extents.reduce((sum, { bytes }) => sum + bytes, 0);
}

function scansOf(source: MemorySource, { free }: BalloonMap): ExtentSet[] {
  return source.regions.map((region, index) => (free[index] ?? ExtentSet.empty).complement(region.bytes));
}

/**
 * One move, over as many connections as it takes until the guest is stopped, and over one from then on:
 *
 *                 the connection breaks                     anything fails: the destination is quit,
 *                 +-----------------+                       then the guest goes on here
 *                 v                 |                  +------------------------------------------+
 *      rounds: connected, round 1, 2, … --stop--> stopped: last difference, roots equal, state loaded
 *                                      ^record                                  |
 *                                                                       record, | commit
 *                                                                               v
 *      gone: it runs there  <--published--  committing  --never-published-->  it goes on here
 *                                               |
 *                                               +-- no word: it stays paused here, said loudly, with the record
 */
class LiveMove implements Attempts<LiveResult> {
  accepted = false;
  readonly #options: MoveOptions;
  readonly #guest: SourceGuest;
  readonly #source: MemorySource;
  readonly #digester: LeafDigester;
  readonly #recordPath: string;
  readonly #token = randomBytes(SESSION_SIZE);
  readonly #tls: TlsDialOptions | undefined;
  readonly #started = performance.now();
  readonly #announced: AnnounceCounts = { whiteouts: 0, mapBytes: 0 };
  readonly #walked: WalkCounts = new PassGauges();
  #stage: MoveStage = MoveStage.rounds;
  #earlierWireBytes = 0;
  /** The first round of the connection at hand. */
  #pass: FullPass | undefined;
  /** Whether there was no room for channels before: what is begun again goes over one connection. */
  #hasNoRoom = false;
  #askedPages = 0;
  #balloon: BalloonMap;

  constructor(
    options: MoveOptions,
    guest: SourceGuest,
    source: MemorySource,
    digester: LeafDigester,
    recordPath: string,
  ) {
    this.#options = options;
    this.#guest = guest;
    this.#source = source;
    this.#digester = digester;
    this.#recordPath = recordPath;
    this.#tls = dialOptions(options.tls);
    this.#balloon = readBalloonMap(source, [{ kind: 'holes' }]);
  }

  get progress(): number {
    return this.#walked.sentBytes;
  }

  /** What is begun anew after the guest was stopped would stop it again: then the first failure is the last. */
  get isOver(): boolean {
    return this.#stage !== MoveStage.rounds;
  }

  async run(): Promise<LiveResult> {
    this.#record(MoveStage.rounds);
    let result: LiveResult;
    try {
      result = await withRetries(this, {
        retryMs: this.#options.retryMs ?? DEFAULT_RETRY_MS,
        signal: this.#options.signal,
        onRetry: (event) => this.#options.onEvent?.(event),
      });
    } catch (error) {
      const reason = BallastError.from(error);
      if (reason.code !== ErrorCode.UNACKNOWLEDGED && !(reason instanceof StillStoppedError))
        removeRecord(this.#recordPath);
      throw reason;
    }
    // The guest runs there: whatever fails from here on is about what is left of it here.
    await this.#leave();
    return result;
  }

  async attempt(): Promise<LiveResult> {
    const { signal, bandwidth = Infinity } = this.#options;
    const connection = await this.#connect();
    const onAbort = (): void => {
      // A commit that was sent cannot be taken back: what happens then only its answer says.
      if (this.#stage !== MoveStage.committing) connection.fail(aborted());
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted === true) onAbort();
      if (Number.isFinite(bandwidth)) await connection.pace(bandwidth);
      const result = await this.#move(connection);
      await connection.close();
      return result;
    } catch (error) {
      // The destination's guest is quit before it closes the connection; then this one goes on.
      const reason = BallastError.from(error);
      await Promise.all([connection.abort(reason), this.#pass?.close(reason)]);
      throw await this.#settle(BallastError.from(error));
    } finally {
      this.#earlierWireBytes += connection.bytesOut + connection.bytesIn;
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #beginPass(plans: readonly RegionPlan[], compressions: readonly Compression[]): FullPass {
    const { to, timeoutMs = DEFAULT_TIMEOUT_MS, bandwidth = Infinity } = this.#options;
    this.#earlierWireBytes += this.#pass?.wireBytes ?? 0;
    this.#pass = new FullPass({
      source: this.#source,
      plans,
      dialect: Dialect.ranges,
      compress: this.#options.compress ?? CompressionChoice.none,
      compressions,
      bandwidth,
      to,
      tls: this.#tls,
      timeoutMs,
      session: this.#token,
      measurement: undefined,
      announced: this.#announced,
      walked: this.#walked,
    });
    return this.#pass;
  }

  async #connect(): Promise<Connection> {
    const { to, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = this.#options;
    return await connectToReceiver(to, { connectMs: timeoutMs, timeoutMs, tls: this.#tls, signal });
  }

  /** The sender's side of a live move, as the data flows. */
  async #move(connection: Connection): Promise<LiveResult> {
    const { to, bandwidth = Infinity, compress = CompressionChoice.none } = this.#options;
    const { regions } = this.#source;
    const regionBytes = regions.map((region) => region.bytes);
    const scans = scansOf(this.#source, this.#balloon);
    const plans = scans.map((scan, index) => ({ scan, free: this.#balloon.free[index] ?? ExtentSet.empty }));
    // The rounds after the first carry little, and the device state comes after them: for those one connection does.
    this.#hasNoRoom ||= this.#pass?.foundNoRoom === true;
    const asked = channelsFor(this.#hasNoRoom ? 1 : this.#options.channels, {
      plans,
      sharesCores: isLoopback(to.host),
      bandwidth,
    });
    const terms = compressionTerms(compress);
    await connection.sendControl({
      kind: 'hello',
      session: this.#token,
      regions: regionBytes,
      dialect: Dialect.ranges,
      ...terms,
      // With 0 it would be a question.
      dataBytesAtMost: Math.max(
        1,
        regions.reduce((sum, { bytes, allocatedBytes }) => sum + Math.min(bytes, allocatedBytes), 0),
      ),
      channels: asked,
      live: true,
    });
    const welcome = await connection.expect('welcome');
    if (welcome.channels > asked)
      throw new BallastError(ErrorCode.PROTOCOL, `${connection.peer} wants more channels than it was asked for`);
    const compressions = agreedCompressions(terms, welcome);
    this.accepted = true;
    this.#options.onEvent?.({
      event: 'connected',
      peer: formatAddress(to),
      resumes: welcome.holds,
      channels: Math.max(welcome.channels, 1),
    });

    // A pass takes long where memory is large, and is of no use to anyone once the connection is gone.
    void connection.failed().then((reason) => {
      this.#digester.stop(reason);
    });
    const sent = regions.map((region) => new SentRegion(region));
    const pass = this.#beginPass(plans, compressions);
    const { pool } = pass;
    const rounds: LiveRound[] = [];
    const { downtimeLimitMs = DEFAULT_DOWNTIME_MS, maxRounds = DEFAULT_MAX_ROUNDS } = this.#options;
    const convergence = new Convergence(downtimeLimitMs, maxRounds);
    const throttle = new Throttle(this.#guest);
    const progress = this.#reportProgress(connection, convergence);
    try {
      // Round 1: all that may hold something, as in any transfer.
      let roundBegan = performance.now();
      let gauges = this.#gauges(connection);
      progress.begin(1, scans);
      await pass.send(
        connection,
        welcome,
        sent.map(({ manifest }) => manifest),
      );
      await this.#endRound(connection, 1, sent);
      rounds.push(this.#roundOf(1, roundBegan, gauges, connection));
      let rate = rateOf(
        this.#gauges(connection).sentBytes - gauges.sentBytes,
        roundBegan,
        Math.min(bandwidth, ASSUMED_RATE),
      );

      // A part of it read again tells whether the guest can be stopped now. One that stands still can.
      if (await this.#guest.refreshRuns()) await this.#foresee(convergence, sent, roundBegan, rate);
      else convergence.noteStandstill();

      // Further rounds, each the difference of what is there now and what was sent, until a stop is short enough.
      let dirtyBegan = roundBegan;
      for (let round = 2; !convergence.isReached; round++) {
        if (convergence.isHopeless && !this.#decideWithout(convergence, throttle)) break;
        roundBegan = performance.now();
        gauges = this.#gauges(connection);
        const found = await this.#find(connection, sent, round === HINTS_ROUND);
        const sendBegan = performance.now();
        progress.begin(
          round,
          found.changes.map(({ changed }) => changed),
        );
        await this.#sendChanges(found.changes, { connection, pool, sent, isLast: false });
        await this.#endRound(connection, round, sent);
        const told = this.#roundOf(round, roundBegan, gauges, connection);
        rounds.push(told);
        rate = rateOf(told.sentBytes, sendBegan, rate);
        convergence.note(
          {
            passSeconds: found.seconds,
            sentBytes: told.sentBytes,
            dirtySeconds: (roundBegan - dirtyBegan) / 1000,
            seconds: told.seconds,
          },
          rate,
        );
        dirtyBegan = roundBegan;
      }

      await throttle.end();
      progress.phase = 'switch';
      return await this.#switchOver(connection, pool, sent, rounds);
    } finally {
      progress.stop();
      // What failed is told already.
      await throttle.end().catch(() => undefined);
    }
  }

  /** Stops the guest here and lets it run there. Every step of this is downtime. */
  async #switchOver(
    connection: Connection,
    pool: BatchPool,
    sent: readonly SentRegion[],
    rounds: LiveRound[],
  ): Promise<LiveResult> {
    // Writing takes its time: what is on disk must hold when the guest is stopped.
    for (let runs: boolean | undefined; runs !== (await this.#guest.refreshRuns());) {
      runs = this.#guest.runs;
      this.#record(MoveStage.stopped);
    }
    const lap = stopwatch();
    this.#stage = MoveStage.stopped;
    await this.#guest.stop();
    const stopMs = lap();

    // The last difference: all of memory is hashed as it stands now, with the balloon as it is now.
    const gauges = this.#gauges(connection);
    const roundBegan = performance.now();
    const found = await this.#find(connection, sent, false);
    const findMs = lap();
    await this.#sendChanges(found.changes, { connection, pool, sent, isLast: true });
    const sendMs = lap();

    // Both roots must be equal; leaves that arrived wrong are sent again, whole.
    const root = await this.#verify(connection, pool, sent);
    const rootMs = lap();
    rounds.push(this.#roundOf(rounds.length + 1, roundBegan, gauges, connection));

    // The state of the devices, through the same connection into the waiting QEMU.
    const state = await this.#guest.saveDeviceState();
    const stateMs = lap();
    await sendState(connection, state, this.#guest.runs);
    await connection.expect('loaded');
    await this.#guest.checkSaved();
    const loadMs = lap();
    // The last moment at which an interruption is in time.
    if (this.#options.signal?.aborted === true) throw aborted();

    // From here on the guest may run there, and only there.
    this.#record(MoveStage.committing);
    const result = (): LiveResult => {
      const contMs = lap();
      const parts = { stopMs, findMs, sendMs, rootMs, stateMs, loadMs, contMs };
      return {
        root: root.toString('hex'),
        memoryBytes: this.#source.bytes,
        ...this.#summary(sent),
        wireBytes: this.#wireBytes(connection),
        seconds: this.#seconds(),
        downtimeMs: Object.values(parts).reduce((sum, ms) => sum + ms, 0),
        downtime: parts,
        rounds,
        balloonActualBytes: this.#guest.balloonActualBytes,
      };
    };
    this.#stage = MoveStage.committing;
    try {
      // Where it cannot be sent any more, the destination may have taken its word back, and said so.
      await connection.sendControl({ kind: 'commit' }).catch(() => undefined);
      const answer = await connection.expect('published', 'never-published');
      if (answer.kind === 'published') {
        const done = result();
        await connection.sendControl({ kind: 'goodbye' }).catch(() => undefined);
        return done;
      }
    } catch (error) {
      const reason = BallastError.from(error);
      await connection.abort(reason);
      if ((await this.#askAgain(reason)) === DestinationWord.runsThere) return result();
      throw reason;
    }
    // It is known for sure that it never ran there.
    this.#stage = MoveStage.stopped;
    throw new BallastError(ErrorCode.GUEST, `${connection.peer} could not let the guest run; it says why on its side`);
  }

  async #verify(connection: Connection, pool: BatchPool, sent: readonly SentRegion[]): Promise<Buffer> {
    for (let round = 0; ; round++) {
      const root = manifestRoot(sent.map(({ manifest }) => manifest));
      await connection.sendControl({ kind: 'end', root, summary: this.#summary(sent) });
      const answer = await connection.expect('verified', 'resend');
      if (answer.kind === 'verified') {
        if (root.equals(answer.root)) return root;
        throw new BallastError(
          ErrorCode.DIGEST_MISMATCH,
          `the receiver read back another image (root ${Buffer.from(answer.root).toString('hex')}) than was sent (${root.toString('hex')})`,
        );
      }
      if (round === MAX_RESEND_ROUNDS)
        throw new BallastError(ErrorCode.PROTOCOL, `${connection.peer} never stops asking for leaves again`);
      this.#distrust(answer.leaves, sent);
      const scans = scansOf(this.#source, this.#balloon);
      const changes = scans.map((scan, index) => {
        const leaves = answer.leaves.filter(([at]) => at === index).map(([, leaf]) => leaf);
        const asked = ExtentSet.of(leaves.map((leaf) => [leaf * LEAF_SIZE, (leaf + 1) * LEAF_SIZE]));
        return { changed: asked.intersect(scan), emptied: ExtentSet.empty };
      });
      await this.#sendChanges(changes, { connection, pool, sent, isLast: true });
    }
  }

  async #sendChanges(
    changes: readonly RegionChanges[],
    to: { connection: Connection; pool: BatchPool; sent: readonly SentRegion[]; isLast: boolean },
  ): Promise<void> {
    const { connection, pool, sent, isLast } = to;
    const [announced, counts] = [this.#announced, this.#walked];
    for (const [index, region] of sent.entries())
      await region.sendChanges(changes[index] ?? NO_CHANGES, {
        connection,
        pool,
        region: index,
        announced,
        counts,
        isLast,
      });
  }

  /** Everything of a round is stored there; what arrived wrong is sent whole in the next. */
  async #endRound(connection: Connection, round: number, sent: readonly SentRegion[]): Promise<void> {
    await connection.sendControl({ kind: 'round', number: round + 1 });
    const { again } = await connection.expect('received');
    this.#distrust(again, sent);
  }

  #distrust(leaves: readonly (readonly [number, number])[], sent: readonly SentRegion[]): void {
    for (const [region, leaf] of leaves) {
      const known = sent[region];
      if (known === undefined || known.manifest.mask(leaf) === 0)
        throw new BallastError(ErrorCode.PROTOCOL, `the receiver asks again for leaf ${leaf}, which was never sent`);
      known.distrust(leaf);
    }
  }

  #countPass(scans: readonly ExtentSet[]): void {
    this.#walked.scannedBytes += bytesIn(scans);
    this.#askedPages += this.#source.bytes / PAGE_SIZE;
  }

  async #find(connection: Connection, sent: readonly SentRegion[], withHints: boolean): ReturnType<typeof findChanges> {
    if (connection.failure !== undefined) throw connection.failure;
    const found = await findChanges(this.#source, this.#digester, sent, withHints);
    this.#balloon = found.balloon;
    this.#countPass(found.scans);
    return found;
  }

  /**
   * Reads a sample of memory, from which one can tell what stopping now would cost.
   * @param dirtyBegan when the first of what was sent was read, a moment of performance.now()
   * @param bytesPerSecond at which memory was sent
   */
  async #foresee(
    convergence: Convergence,
    sent: readonly SentRegion[],
    dirtyBegan: number,
    bytesPerSecond: number,
  ): Promise<void> {
    const scans = scansOf(this.#source, readBalloonMap(this.#source, [{ kind: 'holes' }]));
    const sample = sampleOf(scans);
    const dirtySeconds = (performance.now() - dirtyBegan) / 1000;
    const pass = await this.#digester.digest(sample.scans, false);
    this.#countPass(sample.scans);
    const changed = sent.reduce((sum, region, index) => sum + region.changedLeaves(pass.leavesOf(index)), 0);
    convergence.noteSample(
      {
        passSeconds: this.#digester.secondsFor(bytesIn(scans)),
        changedBytes: changedAtMost(changed, sample) * LEAF_SIZE,
        dirtySeconds,
      },
      bytesPerSecond,
    );
  }

  /**
   * The guest writes too fast. @returns whether to make more rounds
   * @throws BallastError NO_CONVERGENCE
   */
  #decideWithout(convergence: Convergence, throttle: Throttle): boolean {
    const { onNoConvergence = 'switch', downtimeLimitMs = DEFAULT_DOWNTIME_MS } = this.#options;
    const expectation = `the guest would stand still for about ${Math.round(convergence.expectedMs)} ms, and ${downtimeLimitMs} ms are allowed; it changes ${Math.round(convergence.dirtyBytesPerSecond / 2 ** 20)} MiB of memory a second`;
    if (onNoConvergence === 'fail') {
      throw new BallastError(
        ErrorCode.NO_CONVERGENCE,
        `${expectation}; it goes on here: allow more with --downtime-limit, or choose --on-no-convergence throttle or switch`,
      );
    }
    const mayThrottle = onNoConvergence === 'throttle' && this.#guest.runs;
    // Whoever finds it stopped after a crash is to know that this may have been us.
    if (mayThrottle && throttle.share === 0) this.#record(MoveStage.throttled);
    const slower = mayThrottle && throttle.increase();
    this.#options.onEvent?.({
      event: 'warning',
      code: ErrorCode.NO_CONVERGENCE,
      message: slower
        ? `${expectation}; it is slowed down, and stands still ${Math.round(throttle.share * 100)} % of its time from now on`
        : `${expectation}; more rounds do not help, and it is stopped now`,
    });
    if (slower) convergence.hopeAgain();
    return slower;
  }

  /** After a failure: where the guest goes on, or why it does not. */
  async #settle(reason: BallastError): Promise<BallastError> {
    if (reason.code === ErrorCode.UNACKNOWLEDGED) return reason;
    let how: string;
    try {
      how = await this.#guest.goOn();
    } catch (error) {
      return new StillStoppedError(reason, this.#options.qmp, BallastError.from(error));
    }
    if (this.#stage === MoveStage.rounds) return reason;
    return new BallastError(reason.code, `${reason.message}; the guest was not moved and ${how}`, { cause: reason });
  }

  /**
   * The connection ended between the commit and the word of it.
   * @throws BallastError UNACKNOWLEDGED when the destination cannot be asked; the guest stays paused
   */
  async #askAgain(reason: BallastError): Promise<DestinationWord> {
    const { to, timeoutMs = DEFAULT_TIMEOUT_MS, retryMs = DEFAULT_RETRY_MS } = this.#options;
    const { code, message } = reason;
    this.#options.onEvent?.({ event: 'retry', code, message, attempt: 1, inSeconds: 0 });
    const word = await askDestination({
      to,
      tls: this.#tls,
      session: this.#token,
      regions: this.#source.regions.map(({ bytes }) => bytes),
      timeoutMs,
      // A destination that is silent for its own timeout has given up.
      patienceMs: isRetryable(reason) ? Math.min(retryMs, timeoutMs) : 0,
    });
    if (word === DestinationWord.unknown) throw unacknowledged(this.#options, reason);
    if (word === DestinationWord.neverRan) this.#stage = MoveStage.stopped;
    return word;
  }

  /** The guest has gone. */
  async #leave(): Promise<void> {
    try {
      if (this.#options.sourceAfter === 'quit') await this.#guest.quit();
    } catch (error) {
      const { code, message } = BallastError.from(error);
      this.#options.onEvent?.({
        event: 'warning',
        code,
        message: `the guest runs at the destination; what is left of it here could not be ended (${message}): end it by hand, and never resume it`,
      });
    }
    removeRecord(this.#recordPath);
  }

  #record(stage: MoveStage): void {
    const { qmp, to, tls, sourceAfter = 'pause' } = this.#options;
    const { pid } = this.#guest.memory;
    writeRecord(this.#recordPath, {
      format: 1,
      stage,
      qmp,
      qemu: { pid, start: processStart(pid) ?? '' },
      sender: { pid: process.pid, start: processStart(process.pid) ?? '' },
      runs: this.#guest.runs,
      sourceAfter,
      settings: {
        capabilities: { ...this.#guest.settings.capabilities },
        parameters: { ...this.#guest.settings.parameters },
      },
      to: { ...to },
      ...(tls === undefined ? {} : { tls: { ...tls } }),
      session: this.#token.toString('hex'),
      regions: this.#source.regions.map(({ bytes }) => bytes),
    });
  }

  #summary(sent: readonly SentRegion[]): Summary {
    const dataBytes = sent.reduce((sum, { manifest }) => sum + manifest.dataBytes, 0);
    const freeBytes = this.#balloon.free.reduce((sum, free) => sum + free.bytes, 0);
    return {
      strategy: 'bitmap',
      dataBytes,
      zeroBytes: this.#source.bytes - freeBytes - dataBytes,
      freeBytes,
      scannedPages: this.#walked.scannedBytes / PAGE_SIZE,
      askedPages: this.#askedPages,
      ...this.#announced,
      sentBytes: this.#walked.sentBytes,
      storedBytes: this.#walked.storedBytes,
      mapDigest: this.#balloon.digest.toString('hex'),
    };
  }

  #gauges(connection: Connection): { sentBytes: number; wireBytes: number } {
    return { sentBytes: this.#walked.sentBytes, wireBytes: this.#wireBytes(connection) };
  }

  #roundOf(
    round: number,
    began: number,
    before: { sentBytes: number; wireBytes: number },
    connection: Connection,
  ): LiveRound {
    return {
      round,
      sentBytes: this.#walked.sentBytes - before.sentBytes,
      wireBytes: this.#wireBytes(connection) - before.wireBytes,
      seconds: (performance.now() - began) / 1000,
    };
  }

  #reportProgress(
    connection: Connection,
    convergence: Convergence,
  ): { phase: string; begin(round: number, scans: readonly ExtentSet[]): void; stop(): void } {
    let round = 1;
    let totalBytes = 0;
    let scannedBefore = 0;
    const report = {
      phase: 'send',
      begin: (number: number, scans: readonly ExtentSet[]): void => {
        round = number;
        totalBytes = scans.reduce((sum, scan) => sum + scan.bytes, 0);
        scannedBefore = this.#walked.scannedBytes;
      },
      ...everyInterval(() => {
        this.#options.onEvent?.({
          event: 'progress',
          phase: report.phase,
          round,
          doneBytes: Math.min(this.#walked.scannedBytes + (this.#pass?.scannedBytes ?? 0) - scannedBefore, totalBytes),
          totalBytes,
          wireBytes: this.#wireBytes(connection),
          seconds: this.#seconds(),
          ...(convergence.expectedMs === Infinity
            ? {}
            : { dirtyBytesPerSecond: convergence.dirtyBytesPerSecond, expectedDowntimeMs: convergence.expectedMs }),
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

/** The guest does not go on here, although it should: the record stays, for `recoverGuest`. */
class StillStoppedError extends BallastError {
  constructor(reason: BallastError, qmp: string, why: BallastError) {
    super(
      reason.code,
      `${reason.message}; THE GUEST WAS NOT MOVED AND MAY STAND STILL HERE, as its monitor cannot be used (${why.message}): run 'ballast-send recover --qmp ${qmp}', it is safe to resume it here`,
      { cause: why },
    );
  }
}

/** Nobody here knows where the guest runs. */
export function unacknowledged({ qmp, to }: { qmp: string; to: Address }, cause: BallastError): BallastError {
  return new BallastError(
    ErrorCode.UNACKNOWLEDGED,
    `THE GUEST STAYS PAUSED HERE: the move was committed, and the destination at ${formatAddress(to)} did not say whether the guest runs there (${cause.message}). Look there: if its QEMU runs the guest, end the one here; if that QEMU is gone, or is paused and you end it, run 'ballast-send recover --qmp ${qmp} --destination gone'`,
    { cause },
  );
}

/**
 * A guest may have several monitors, and so several records: its memory is one. The lock goes with the file's descriptor.
 * @throws BallastError BUSY when it is moved already
 */
function claim({ regions }: MemorySource, qmp: string): void {
  const [region] = regions;
  if (region === undefined) return;
  let isOurs: boolean;
  try {
    isOurs = tryLock(region.fd);
  } catch {
    // Some filesystems lock nothing that was opened for reading only.
    return;
  }
  if (!isOurs)
    throw new BallastError(
      ErrorCode.BUSY,
      `another program of Ballast works with ${region.path}, the memory of the guest at ${qmp}; wait for it`,
    );
}

/** @throws BallastError GUEST, BUSY when a move of this guest was interrupted, or goes on */
function refuseUnfinished(path: string, qmp: string): void {
  const record = readRecord(path);
  if (record === undefined) return;
  if (processStart(record.sender.pid) === record.sender.start && record.sender.pid !== process.pid)
    throw new BallastError(
      ErrorCode.BUSY,
      `another ballast-send moves the guest at ${qmp} (process ${record.sender.pid})`,
    );
  // Another QEMU uses the name by now, and knows nothing of that move.
  if (processStart(record.qemu.pid) !== record.qemu.start) return;
  throw new BallastError(
    ErrorCode.GUEST,
    `an earlier move of the guest at ${qmp} was interrupted; run 'ballast-send recover --qmp ${qmp}' first`,
  );
}

export function dialOptions(tls: MoveOptions['tls']): TlsDialOptions | undefined {
  return (
    tls && {
      identity: readTlsIdentity(tls.directory, 'client'),
      ...(tls.hostname === undefined ? {} : { hostname: tls.hostname }),
    }
  );
}

async function sendState(connection: Connection, state: readonly Buffer[], running: boolean): Promise<void> {
  let bytes = 0;
  const most = MAX_PAYLOAD[FrameType.state];
  for (const piece of state) {
    for (let at = 0; at < piece.length; at += most) {
      const checked = piece.subarray(at, at + most);
      bytes += checked.length;
      await connection.send({ type: FrameType.state, checked });
    }
  }
  await connection.sendControl({ kind: 'state-end', bytes, running });
}

/** Bytes a second that were sent since `began`; the rate before where they are too few to show any. */
function rateOf(sentBytes: number, began: number, before: number): number {
  return sentBytes < TELLING_BYTES ? before : sentBytes / ((performance.now() - began) / 1000);
}

/** Milliseconds since the last call. */
function stopwatch(): () => number {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const ms = now - last;
    last = now;
    return Math.round(ms * 100) / 100;
  };
}
