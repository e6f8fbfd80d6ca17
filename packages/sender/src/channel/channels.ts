import { Worker } from 'node:worker_threads';
import { BallastError, ErrorCode, isRetryable } from '@ballast/shared/errors';
import { addEntries, type RegionManifest } from '@ballast/shared/integrity';
import type { ThreadAccount } from '@ballast/shared/measure';
import { checkThreadRoom, threadFailure } from '@ballast/shared/thread-failure';
import { threadLoaded } from '@ballast/shared/thread-loaded';
import type { AnnounceCounts } from '../announcer.js';
import type { WalkCounts } from '../leaf-sender.js';
import { PassGauges } from '../pass-gauges.js';
import type { ChannelReport, ChannelStop, ChannelTask } from './task.js';

/** Milliseconds that a thread has to end by itself when it was told to. */
const STOP_MS = 2000;

/** What a channel has sent, and where its time went if that was asked for. */
type ChannelOutcome = Extract<ChannelReport, { kind: 'finished' }>;

interface Channel {
  /** Undefined where no thread could be had. */
  readonly worker: Worker | undefined;
  readonly gauges: PassGauges;
  readonly finished: Promise<ChannelOutcome>;
  /** See `threadLoaded`. */
  readonly loaded: Promise<void>;
  readonly ended: Promise<void>;
  hasJoined: boolean;
  isToldToEnd: boolean;
  /** Why it failed, unless it was told to end. */
  failure: BallastError | undefined;
}

/**
 * The channels of a session, each a connection in a thread of its own. All of them claim stretches of memory from one
 * cursor, and share nothing else: no locks, no copies between threads. The first that fails fails the session.
 */
export class Channels implements WalkCounts, AnnounceCounts {
  readonly #channels: readonly Channel[];

  private constructor(channels: readonly Channel[]) {
    this.#channels = channels;
  }

  /** Starts the threads, which connect at once and begin to send when they have joined the session. */
  static start(count: number, task: Omit<ChannelTask, 'index' | 'gauges'>): Channels {
    let start = (index: number): Channel => startChannel(index, task);
    try {
      checkThreadRoom(count);
    } catch (error) {
      const failure = BallastError.from(error);
      start = () => neverStarted(new PassGauges(), failure);
    }
    return new Channels(Array.from({ length: count }, (_, index) => start(index)));
  }

  /**
   * Whether one of them failed for want of something that the session's own connection has: no thread or descriptor was
   * left at this side or the other, or no further connection gets through. A receiver without descriptors closes those
   * without a word.
   */
  get foundNoRoom(): boolean {
    return this.#channels.some(
      ({ failure, hasJoined }) =>
        failure !== undefined && (failure.code === ErrorCode.BUSY || (!hasJoined && isRetryable(failure))),
    );
  }

  get scannedBytes(): number {
    return this.#sum((gauges) => gauges.scannedBytes);
  }

  get sentBytes(): number {
    return this.#sum((gauges) => gauges.sentBytes);
  }

  get tableBytes(): number {
    return this.#sum((gauges) => gauges.tableBytes);
  }

  get storedBytes(): number {
    return this.#sum((gauges) => gauges.storedBytes);
  }

  get whiteouts(): number {
    return this.#sum((gauges) => gauges.whiteouts);
  }

  get mapBytes(): number {
    return this.#sum((gauges) => gauges.mapBytes);
  }

  /** Bytes in both directions of all channels. */
  get wireBytes(): number {
    return this.#sum((gauges) => gauges.wireBytes);
  }

  /**
   * Resolves when all memory was sent.
   * @param manifest gets the entries of what was sent
   * @returns where the time of each thread went, if that was asked for
   * @throws BallastError of the first channel that failed
   */
  async finish(manifest: readonly RegionManifest[]): Promise<ThreadAccount[]> {
    const accounts = await Promise.all(
      this.#channels.map(async ({ finished }) => {
        const outcome = await finished;
        for (const [index, entries] of outcome.entries.entries()) {
          const region = manifest[index];
          if (region !== undefined) addEntries(region, entries);
        }
        return outcome.account;
      }),
    );
    return accounts.filter((account) => account !== undefined);
  }

  /** Ends all threads, for `reason` where they are not done; resolves when none is left. */
  async close(reason: BallastError): Promise<void> {
    const { code, message } = reason;
    await Promise.all(
      this.#channels.map(async (channel) => {
        const { worker, loaded, ended } = channel;
        channel.isToldToEnd = true;
        if (worker === undefined) return;
        worker.postMessage({ code, message } satisfies ChannelStop);
        const timer = setTimeout(() => void loaded.then(() => worker.terminate()), STOP_MS);
        await ended;
        clearTimeout(timer);
      }),
    );
  }

  #sum(gauge: (gauges: PassGauges) => number): number {
    return this.#channels.reduce((sum, { gauges }) => sum + gauge(gauges), 0);
  }
}

function startChannel(index: number, task: Omit<ChannelTask, 'index' | 'gauges'>): Channel {
  const gauges = new PassGauges();
  const workerData: ChannelTask = { ...task, index, gauges: gauges.memory };
  let worker: Worker;
  try {
    worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
  } catch (error) {
    return neverStarted(gauges, threadFailure(error));
  }
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', () => {
      resolve();
    });
  });
  const finished = new Promise<ChannelOutcome>((resolve, reject) => {
    const fail = (error: BallastError): void => {
      if (!channel.isToldToEnd) channel.failure ??= error;
      reject(error);
    };
    worker.on('message', (report: ChannelReport) => {
      if (report.kind === 'joined') channel.hasJoined = true;
      if (report.kind === 'finished') resolve(report);
      if (report.kind === 'failed') fail(new BallastError(report.code, report.message));
    });
    worker.on('error', (error) => {
      fail(threadFailure(error));
    });
    worker.on('exit', () => {
      reject(BallastError.from(new Error('the thread of a channel ended without a word')));
    });
  });
  // Whoever waits for it gets the failure; nobody may, when the session fails first.
  finished.catch(() => undefined);
  const channel: Channel = {
    worker,
    gauges,
    finished,
    loaded: threadLoaded(worker),
    ended,
    hasJoined: false,
    isToldToEnd: false,
    failure: undefined,
  };
  return channel;
}

function neverStarted(gauges: PassGauges, failure: BallastError): Channel {
  const finished = Promise.reject(failure);
  finished.catch(() => undefined);
  const ended = Promise.resolve();
  return { worker: undefined, gauges, finished, loaded: ended, ended, hasJoined: false, isToldToEnd: false, failure };
}
