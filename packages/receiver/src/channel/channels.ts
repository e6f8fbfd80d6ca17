import { Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { checkThreadRoom, threadFailure } from '@ballast/shared/thread-failure';
import { threadLoaded } from '@ballast/shared/thread-loaded';
import { Gauge, type ChannelConnection, type ChannelOrder, type ChannelReport, type ChannelTask } from './task.js';

/** Milliseconds that a thread has to end by itself when it was told to. */
const STOP_MS = 2000;
/**
 * Bytes of memory times channels, at most. Each channel may note a bit for each page, and the largest memory has 2 GiB of
 * them: so the notes of all channels together stay below 4 GiB, whatever a sender claims. 8 TiB still get all 16.
 */
const MAX_NOTED_BYTES = 2 ** 47;

/**
 * How many channels a session gets.
 * @param asked how many its sender would like to have
 * @param memoryBytes of all regions together
 */
export function channelsGranted(asked: number, memoryBytes: number): number {
  return Math.min(asked, Math.floor(MAX_NOTED_BYTES / memoryBytes));
}

export interface ChannelEvents {
  /**
   * The sender has finished on a channel. What was received is handed on at once and kept nowhere here: all parts
   * together may be many times what is left of them when they are put together.
   * @throws BallastError which fails the channel
   */
  readonly onReceived: (outcome: ChannelOutcome) => void;
  /** A leaf is not what was sent. */
  readonly onDamaged: (region: number, leaf: number) => void;
  /** An older copy cannot be read; each channel may find that. */
  readonly onOldFailed: (error: BallastError) => void;
  /** A connection was turned away. */
  readonly onStranger: (error: BallastError) => void;
  /** A channel has failed, and the session with it. */
  readonly onFailed: (error: BallastError) => void;
}

/** What a channel has received, and where its time went if that was asked for. */
export type ChannelOutcome = Extract<ChannelReport, { kind: 'finished' }>;

/** What all channels of a session have in common. */
type SessionTask = Omit<ChannelTask, 'gauges' | 'patienceMs'>;

/**
 * The channels of a session, each a connection in a thread of its own that writes to the same files. No two of them are
 * told about the same page, which is checked when their parts are put together. A thread is started when a connection
 * wants to be its channel: whoever only says hello costs none.
 */
export class Channels {
  readonly #channels: readonly Channel[];
  readonly #patience: NodeJS.Timeout;

  /** @param count how many the sender was granted */
  constructor(count: number, task: SessionTask, events: ChannelEvents) {
    const deadline = performance.now() + task.timeoutMs;
    let hasRoom = false;
    const checkRoom = (): void => {
      if (!hasRoom) checkThreadRoom(count);
      hasRoom = true;
    };
    this.#channels = Array.from({ length: count }, () => new Channel(task, deadline, events, checkRoom));
    this.#patience = setTimeout(() => {
      for (const channel of this.#channels) channel.giveUpUnlessBegun();
    }, task.timeoutMs);
  }

  /** Whether one of them failed because there was no more of something that a thread needs. */
  get foundNoRoom(): boolean {
    return this.#channels.some(({ failure }) => failure?.code === ErrorCode.BUSY);
  }

  /** Bytes of memory that were told about on channels that have not finished. */
  get coveredBytes(): number {
    return this.#channels.reduce(
      (sum, { gauges, hasFinished }) => sum + (hasFinished ? 0 : (gauges[Gauge.coveredBytes] ?? 0)),
      0,
    );
  }

  /** Bytes in both directions of all channels. */
  get wireBytes(): number {
    return this.#channels.reduce((sum, { gauges }) => sum + (gauges[Gauge.wireBytes] ?? 0), 0);
  }

  /** Gives a connection to the thread that it wants; the first that knows the session becomes the channel. */
  take(connection: ChannelConnection): void {
    const channel = this.#channels[connection.index];
    if (channel === undefined) closeConnection(connection.fd);
    else channel.take(connection);
  }

  /**
   * Resolves once the sender has finished on all channels, and `onReceived` was told of each.
   * @throws BallastError of the first channel that failed
   */
  async finished(): Promise<void> {
    await Promise.all(this.#channels.map(async ({ finished }) => finished));
  }

  /** Ends all threads, for `reason` where they are not done; resolves when none is left. */
  async close(reason: BallastError): Promise<void> {
    clearTimeout(this.#patience);
    await Promise.all(this.#channels.map(async (channel) => channel.close(reason)));
  }
}

/** One channel, and its thread once there is one. */
class Channel {
  readonly gauges: Float64Array;
  readonly finished: Promise<void>;
  hasFinished = false;
  failure: BallastError | undefined;
  readonly #task: Omit<ChannelTask, 'patienceMs'>;
  /** When a connection must have joined, a moment of performance.now(). */
  readonly #deadline: number;
  readonly #events: ChannelEvents;
  /** Throws when there is no room for all threads, before the first of them is started. */
  readonly #checkRoom: () => void;
  #finish: () => void = () => undefined;
  #reject: (error: BallastError) => void = () => undefined;
  #worker: Worker | undefined;
  /** See `threadLoaded`. */
  #loaded: Promise<void> = Promise.resolve();
  #ended: Promise<void> = Promise.resolve();
  #isOver = false;
  /** Descriptors that were given to the thread, and are closed here if it ends before it has taken them. */
  readonly #given = new Set<number>();

  constructor(task: SessionTask, deadline: number, events: ChannelEvents, checkRoom: () => void) {
    const gauges = new SharedArrayBuffer(Object.keys(Gauge).length * Float64Array.BYTES_PER_ELEMENT);
    this.gauges = new Float64Array(gauges);
    this.#task = { ...task, gauges };
    this.#deadline = deadline;
    this.#events = events;
    this.#checkRoom = checkRoom;
    this.finished = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#reject = reject;
    });
    // Whoever waits for it gets the failure; nobody may, when the session fails first.
    this.finished.catch(() => undefined);
  }

  /** The descriptor of the connection belongs to the channel from here on, whatever becomes of it. */
  take(connection: ChannelConnection): void {
    if (!this.#isOver) this.#worker ??= this.#start();
    if (this.#isOver || this.#worker === undefined) {
      closeConnection(connection.fd);
      return;
    }
    this.#given.add(connection.fd);
    this.#worker.postMessage({ kind: 'connection', connection } satisfies ChannelOrder);
  }

  giveUpUnlessBegun(): void {
    if (this.#worker === undefined)
      this.#fail(new BallastError(ErrorCode.TIMEOUT, 'the sender did not open the channels that it asked for'));
  }

  async close({ code, message }: BallastError): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) {
      this.#isOver = true;
      return;
    }
    worker.postMessage({ kind: 'stop', code, message } satisfies ChannelOrder);
    const timer = setTimeout(() => void this.#loaded.then(() => worker.terminate()), STOP_MS);
    await this.#ended;
    clearTimeout(timer);
  }

  /** @returns undefined when no thread can be had, which fails the channel */
  #start(): Worker | undefined {
    const patienceMs = Math.max(0, this.#deadline - performance.now());
    const workerData: ChannelTask = { ...this.#task, patienceMs };
    let worker: Worker;
    try {
      this.#checkRoom();
      worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    } catch (error) {
      this.#isOver = true;
      this.#fail(threadFailure(error));
      return undefined;
    }
    this.#loaded = threadLoaded(worker);
    worker.on('message', (report: ChannelReport) => {
      this.#hear(report);
    });
    worker.on('error', (error) => {
      this.#fail(threadFailure(error));
    });
    this.#ended = new Promise((resolve) => {
      worker.once('exit', () => {
        this.#isOver = true;
        for (const fd of this.#given) closeConnection(fd);
        this.#reject(new BallastError(ErrorCode.INTERNAL, 'the thread of a channel ended without a word'));
        resolve();
      });
    });
    return worker;
  }

  #hear(report: ChannelReport): void {
    switch (report.kind) {
      case 'taken':
        this.#given.delete(report.fd);
        break;
      case 'damaged':
        this.#events.onDamaged(report.region, report.leaf);
        break;
      case 'old-failed':
        this.#events.onOldFailed(new BallastError(report.code, report.message));
        break;
      case 'stranger':
        this.#events.onStranger(new BallastError(report.code, report.message));
        break;
      case 'finished':
        this.#received(report);
        break;
      case 'failed':
        this.#fail(new BallastError(report.code, report.message));
        break;
    }
  }

  #received(outcome: ChannelOutcome): void {
    try {
      this.#events.onReceived(outcome);
      this.hasFinished = true;
      this.#finish();
    } catch (error) {
      this.#fail(BallastError.from(error));
    }
  }

  #fail(error: BallastError): void {
    this.failure ??= error;
    this.#reject(error);
    this.#events.onFailed(error);
  }
}

/** By a Socket, since Node.js warns in some threads when a descriptor is closed that it did not open. */
function closeConnection(fd: number): void {
  new Socket({ fd }).destroy();
}
