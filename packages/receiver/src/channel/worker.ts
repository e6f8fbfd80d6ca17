import { Socket } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { buffersOf } from '@ballast/shared/integrity';
import { Cause, RunningStopwatch, noStopwatch } from '@ballast/shared/measure';
import { PREAMBLE } from '@ballast/shared/protocol';
import { leafCount } from '@ballast/shared/memory';
import {
  adopt,
  byDataEvents,
  secured,
  type Connection,
  type ConnectionOptions,
  type SentBefore,
} from '@ballast/shared/transport';
import { Basis } from '../basis.js';
import { openShared } from '../destination/filesystem.js';
import { FrameApplication } from '../frame-application.js';
import { Handshakes } from '../handshakes.js';
import { OldCopy } from '../old-copy.js';
import { ReceivedRegion } from '../received-region.js';
import { distrust } from '../trust.js';
import { Gauge, type ChannelConnection, type ChannelOrder, type ChannelReport, type ChannelTask } from './task.js';

/** Milliseconds that a connection has to join. */
const JOIN_TIMEOUT_MS = 10_000;
/** Connections that have not joined yet, of one thread. */
const MAX_CANDIDATES = 32;
/** Questions that may be open at a time: a sender asks one stretch ahead. */
const MAX_ASKED = 2;
/** Milliseconds between two readings of the counters. */
const GAUGE_MS = 100;

/** The thread of one channel: waits for its connection, and applies what comes over it. */
class ChannelThread {
  readonly #task: ChannelTask;
  readonly #report: (report: ChannelReport) => void;
  readonly #candidates = new Set<Connection>();
  readonly #joined: Promise<Connection>;
  #join: (connection: Connection) => void = () => undefined;
  #giveUp: (reason: BallastError) => void = () => undefined;
  #channel: Connection | undefined;
  readonly #stopwatch: RunningStopwatch | undefined;
  #stopped: BallastError | undefined;
  readonly #handshakes: Handshakes | undefined;

  constructor(task: ChannelTask, report: (report: ChannelReport) => void) {
    this.#task = task;
    this.#stopwatch = task.measure ? new RunningStopwatch() : undefined;
    this.#stopwatch?.switchTo(Cause.wait);
    this.#report = report;
    this.#joined = new Promise((resolve, reject) => {
      this.#join = resolve;
      this.#giveUp = reject;
    });
    this.#joined.catch(() => undefined);
    const { tls } = task;
    if (tls === undefined) return;
    this.#handshakes = new Handshakes({
      identity: tls.identity,
      timeoutMs: JOIN_TIMEOUT_MS,
      atMost: MAX_CANDIDATES,
      onSecure: (socket) => {
        void this.#tryJoin(secured(socket, this.#options()), distrust(socket, tls.allowedNames));
      },
      onPlain: (socket) => {
        const refused = 'the sender does not speak TLS; give both sides the same TLS options';
        void this.#tryJoin(byDataEvents(socket, this.#options()), refused);
      },
      onFailed: (_socket, { code, message }) => {
        report({ kind: 'stranger', code, message });
      },
    });
  }

  /** Takes a connection that may be the one. */
  take({ fd, rest, sent }: ChannelConnection): void {
    this.#report({ kind: 'taken', fd });
    if (this.#handshakes === undefined) {
      const options = this.#options(sent);
      const connection = rest.length === 0 ? adopt(fd, options) : byDataEvents(new Socket({ fd }), options);
      if (rest.length > 0) connection.receivedChunk(Buffer.from(rest));
      void this.#tryJoin(connection, undefined);
      return;
    }
    const socket = new Socket({ fd, readable: true, writable: true });
    if (rest.length > 0) socket.unshift(Buffer.from(rest));
    this.#handshakes.take(socket);
  }

  stop(reason: BallastError): void {
    this.#stopped ??= reason;
    this.#giveUp(reason);
    for (const candidate of this.#candidates) candidate.fail(reason);
    this.#channel?.fail(reason);
  }

  /** Resolves when all is received, or throws why not; nothing is open afterwards. */
  async run(): Promise<void> {
    const patience = setTimeout(() => {
      this.#giveUp(new BallastError(ErrorCode.TIMEOUT, 'the sender did not open the channels that it asked for'));
    }, this.#task.patienceMs);
    try {
      const connection = await this.#joined;
      clearTimeout(patience);
      if (this.#stopped !== undefined) connection.fail(this.#stopped);
      try {
        await this.#receive(connection);
        await connection.close();
      } catch (error) {
        const reason = BallastError.from(error);
        await connection.abort(reason);
        throw reason;
      }
    } finally {
      clearTimeout(patience);
      this.#handshakes?.close();
      const over = new BallastError(ErrorCode.BUSY, 'this channel has its connection already');
      for (const candidate of this.#candidates) candidate.fail(over);
    }
  }

  #options(sent?: SentBefore): ConnectionOptions {
    return { timeoutMs: this.#task.timeoutMs, peer: 'the sender', isStranger: true, ...(sent && { sent }) };
  }

  async #tryJoin(connection: Connection, distrusted: string | undefined): Promise<void> {
    this.#candidates.add(connection);
    const timer = setTimeout(() => {
      connection.fail(new BallastError(ErrorCode.TIMEOUT, 'it connected and did not say which session it belongs to'));
    }, JOIN_TIMEOUT_MS);
    try {
      if (distrusted !== undefined) throw new BallastError(ErrorCode.TLS, distrusted);
      if (this.#candidates.size > MAX_CANDIDATES) throw new BallastError(ErrorCode.BUSY, 'too many connections');
      const { session } = await connection.expect('join');
      if (Buffer.compare(session, this.#task.session) !== 0 || this.#channel !== undefined)
        throw new BallastError(ErrorCode.BUSY, 'this receiver is busy with another sender; try again later');
      this.#channel = connection;
      this.#join(connection);
    } catch (error) {
      const reason = BallastError.from(error);
      this.#report({ kind: 'stranger', code: reason.code, message: reason.message });
      await connection.abort(reason);
    } finally {
      clearTimeout(timer);
      this.#candidates.delete(connection);
    }
  }

  async #receive(connection: Connection): Promise<void> {
    const { dialect, compressions, readsBack, holds, old } = this.#task;
    const stopwatch = this.#stopwatch ?? noStopwatch;
    connection.stopwatch = stopwatch;
    stopwatch.switchTo(Cause.agree);
    const stores = this.#task.stores.map((store) => openShared(store, this.#task.channels));
    const onOldFailed = ({ code, message }: BallastError): void => {
      this.#report({ kind: 'old-failed', code, message });
    };
    const bases = stores.map((store, index) => {
      const copy = old[index];
      return holds ? new Basis(store, copy && new OldCopy(copy.fd, copy.path, copy.bytes), onOldFailed) : undefined;
    });
    const regions = stores.map((store, index) => new ReceivedRegion(index, store, readsBack, bases[index], stopwatch));
    const frames = new FrameApplication({ dialect, compressions }, regions, stopwatch, (region, leaf) => {
      this.#report({ kind: 'damaged', region, leaf });
    });
    const gauges = new Float64Array(this.#task.gauges);
    const readGauges = (): void => {
      gauges[Gauge.coveredBytes] = regions.reduce((sum, region) => sum + region.coveredBytes, 0);
      gauges[Gauge.wireBytes] = PREAMBLE.length + connection.bytesIn + connection.bytesOut;
    };
    const clock = setInterval(readGauges, GAUGE_MS);
    const answers = new Answers(connection, bases);
    try {
      connection.boundKernelBuffers(this.#task.channels);
      await connection.sendControl({ kind: 'joined' });
      stopwatch.switchTo(Cause.data);
      for (;;) {
        const { control, frame } = await connection.next();
        if (frame !== undefined) frames.apply(frame);
        else if (control.kind === 'ask') answers.ask(control.region, control.first, control.end);
        else if (control.kind === 'finished') break;
        else throw new BallastError(ErrorCode.PROTOCOL, `the sender sent '${control.kind}' on a channel`);
      }
      await answers.done();
      const account = this.#stopwatch?.account('channel');
      const parts = regions.map((region) => region.part());
      this.#report({ kind: 'finished', parts, ...(account && { account }) });
    } finally {
      readGauges();
      clearInterval(clock);
      for (const store of stores) store.close();
    }
  }
}

/** Answers what the sender asks, one question after the other, beside the frames that come. */
class Answers {
  readonly #connection: Connection;
  readonly #bases: readonly (Basis | undefined)[];
  #open = 0;
  #position = { region: 0, leaf: 0 };
  #telling: Promise<void> = Promise.resolve();

  constructor(connection: Connection, bases: readonly (Basis | undefined)[]) {
    this.#connection = connection;
    this.#bases = bases;
  }

  /** @throws BallastError PROTOCOL when it makes no sense, or asks for more work than one pass over the memory */
  ask(region: number, first: number, end: number): void {
    const basis = this.#bases[region];
    const { region: lastRegion, leaf } = this.#position;
    const isBehind = region > lastRegion || (region === lastRegion && first >= leaf);
    if (basis === undefined || first > end || end > leafCount(basis.bytes) || !isBehind || this.#open === MAX_ASKED) {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `the sender asked about the leaves ${first} to ${end} of memory file ${region}, where that was not to be asked`,
      );
    }
    this.#position = { region, leaf: end };
    this.#open++;
    this.#telling = this.#telling
      .then(async () => {
        await basis.tell(this.#connection, region, first, end);
        this.#open--;
      })
      .catch((error: unknown) => {
        this.#connection.fail(BallastError.from(error));
      });
  }

  async done(): Promise<void> {
    await this.#telling;
    if (this.#connection.failure !== undefined) throw this.#connection.failure;
  }
}

const port = parentPort;
if (port === null) throw new Error('this module is the thread of a channel');
const report = (message: ChannelReport): void => {
  const parts = message.kind === 'finished' ? message.parts : [];
  const moved = parts.flatMap(({ entries, covered }) => [
    ...buffersOf(entries),
    covered.blocks.buffer,
    covered.words.buffer,
  ]);
  port.postMessage(message, moved as ArrayBuffer[]);
};
const thread = new ChannelThread(workerData as ChannelTask, report);
port.on('message', (order: ChannelOrder) => {
  if (order.kind === 'connection') thread.take(order.connection);
  else thread.stop(new BallastError(order.code, order.message));
});
// Not awaited here: the bundle is CommonJS.
void thread
  .run()
  .catch((error: unknown) => {
    const { code, message } = BallastError.from(error);
    report({ kind: 'failed', code, message });
  })
  .finally(() => {
    port.close();
  });
