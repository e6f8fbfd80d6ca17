import { closeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { Gauge, type ChannelConnection, type ChannelOrder, type ChannelReport, type ChannelTask } from './task.js';

/** Milliseconds that a thread has to end by itself when it was told to. */
const STOP_MS = 2000;

export interface ChannelEvents {
  /** A leaf is not what was sent. */
  readonly onDamaged: (region: number, leaf: number) => void;
  /** A connection was turned away. */
  readonly onStranger: (error: BallastError) => void;
  /** A channel has failed, and the session with it. */
  readonly onFailed: (error: BallastError) => void;
}

/** What a channel has received, and where its time went if that was asked for. */
type ChannelOutcome = Extract<ChannelReport, { kind: 'finished' }>;

interface Channel {
  readonly worker: Worker;
  readonly gauges: Float64Array;
  readonly finished: Promise<ChannelOutcome>;
  readonly ended: Promise<void>;
  over: boolean;
}

/**
 * The channels of a session, each a connection in a thread of its own that writes to the same files. No two of them are
 * told about the same page, which is checked when their parts are put together.
 */
export class Channels {
  readonly #channels: readonly Channel[];

  private constructor(channels: readonly Channel[]) {
    this.#channels = channels;
  }

  /** Starts the threads, each of which waits for a connection. */
  static start(count: number, task: Omit<ChannelTask, 'gauges'>, events: ChannelEvents): Channels {
    return new Channels(Array.from({ length: count }, () => startChannel(task, events)));
  }

  /** Bytes of memory that were told about on all channels. */
  get coveredBytes(): number {
    return this.#channels.reduce((sum, { gauges }) => sum + (gauges[Gauge.coveredBytes] ?? 0), 0);
  }

  /** Bytes in both directions of all channels. */
  get wireBytes(): number {
    return this.#channels.reduce((sum, { gauges }) => sum + (gauges[Gauge.wireBytes] ?? 0), 0);
  }

  /** Gives a connection to the thread that it wants; the first that knows the session becomes the channel. */
  take(connection: ChannelConnection): void {
    const channel = this.#channels[connection.index];
    if (channel === undefined || channel.over) closeSync(connection.fd);
    else channel.worker.postMessage({ kind: 'connection', connection } satisfies ChannelOrder);
  }

  /**
   * What each channel has received, region by region, once the sender has finished on all of them.
   * @throws BallastError of the first channel that failed
   */
  async finished(): Promise<readonly ChannelOutcome[]> {
    return await Promise.all(this.#channels.map(async ({ finished }) => await finished));
  }

  /** Ends all threads, for `reason` where they are not done; resolves when none is left. */
  async close({ code, message }: BallastError): Promise<void> {
    await Promise.all(
      this.#channels.map(async ({ worker, ended }) => {
        worker.postMessage({ kind: 'stop', code, message } satisfies ChannelOrder);
        const timer = setTimeout(() => void worker.terminate(), STOP_MS);
        await ended;
        clearTimeout(timer);
      }),
    );
  }
}

function startChannel(task: Omit<ChannelTask, 'gauges'>, events: ChannelEvents): Channel {
  const gauges = new SharedArrayBuffer(Object.keys(Gauge).length * Float64Array.BYTES_PER_ELEMENT);
  const workerData: ChannelTask = { ...task, gauges };
  const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', () => {
      channel.over = true;
      resolve();
    });
  });
  const finished = new Promise<ChannelOutcome>((resolve, reject) => {
    const fail = (error: BallastError): void => {
      reject(error);
      events.onFailed(error);
    };
    worker.on('message', (report: ChannelReport) => {
      switch (report.kind) {
        case 'damaged':
          events.onDamaged(report.region, report.leaf);
          break;
        case 'stranger':
          events.onStranger(new BallastError(report.code, report.message));
          break;
        case 'finished':
          resolve(report);
          break;
        case 'failed':
          fail(new BallastError(report.code, report.message));
          break;
      }
    });
    worker.on('error', (error) => {
      fail(BallastError.from(error));
    });
    worker.on('exit', () => {
      reject(new BallastError(ErrorCode.INTERNAL, 'the thread of a channel ended without a word'));
    });
  });
  // Whoever waits for it gets the failure; nobody may, when the session fails first.
  finished.catch(() => undefined);
  const channel: Channel = { worker, gauges: new Float64Array(gauges), finished, ended, over: false };
  return channel;
}
