import { parentPort, workerData } from 'node:worker_threads';
import { BallastError } from '@ballast/shared/errors';
import { buffersOf, emptyManifest, entriesOf, type RegionManifest } from '@ballast/shared/integrity';
import { Cause, RunningStopwatch } from '@ballast/shared/measure';
import { PREAMBLE } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';
import { announcerOf } from '../announcer.js';
import { leafCompression } from '../compression/choice.js';
import { connectToReceiver } from '../connect.js';
import { HoldingsReader } from '../holdings-reader.js';
import { sendLeaves } from '../leaf-sender.js';
import { BatchPool, batchLimit } from '../page-batch.js';
import { readsOf, type PageReads } from '../source/memory-source.js';
import { PassGauges } from '../pass-gauges.js';
import { Stretches, pagesOf, type Stretch } from './stretches.js';
import type { ChannelReport, ChannelStop, ChannelTask } from './task.js';

/** Milliseconds between two readings of the connection's counters. */
const GAUGE_MS = 100;

/** The thread of one channel: claims stretches of the memory until none is left, and sends each over its own connection. */
async function runChannel(
  task: ChannelTask,
  report: (report: ChannelReport) => void,
  stop: AbortSignal,
): Promise<void> {
  const { to, tls, connectMs, timeoutMs } = task;
  const stopwatch = task.measure ? new RunningStopwatch() : undefined;
  stopwatch?.switchTo(Cause.agree);
  const connection = await connectToReceiver(to, {
    ...{ connectMs, timeoutMs, tls },
    signal: stop,
    channel: task.index,
  });
  if (stopwatch !== undefined) connection.stopwatch = stopwatch;
  const onStop = (): void => {
    connection.fail(BallastError.from(stop.reason));
  };
  stop.addEventListener('abort', onStop, { once: true });
  const gauges = new PassGauges(task.gauges);
  const readGauges = (): void => {
    gauges.wireBytes = PREAMBLE.length + connection.bytesOut + connection.bytesIn;
  };
  const clock = setInterval(readGauges, GAUGE_MS);
  const reads = task.regions.map(readsOf);
  try {
    if (stop.aborted) onStop();
    await connection.sendControl({ kind: 'join', session: task.session });
    await connection.expect('joined');
    report({ kind: 'joined' });
    connection.boundKernelBuffers(task.channels);

    if (Number.isFinite(task.bandwidth)) await connection.pace(task.bandwidth);
    const manifest = emptyManifest(task.stretches.regionBytes);
    await sendStretches(connection, task, { reads, manifest, gauges });
    await connection.sendControl({ kind: 'finished' });
    stopwatch?.switchTo(Cause.agree);
    await connection.closedByPeer();
    await connection.close();
    readGauges();
    const account = stopwatch?.account(`channel ${task.index + 1}`);
    report({ kind: 'finished', entries: manifest.map(entriesOf), ...(account && { account }) });
  } catch (error) {
    const reason = BallastError.from(error);
    await connection.abort(reason);
    throw reason;
  } finally {
    readGauges();
    clearInterval(clock);
    for (const region of reads) region.close();
  }
}

interface ChannelWork {
  readonly reads: readonly PageReads[];
  readonly manifest: readonly RegionManifest[];
  readonly gauges: PassGauges;
}

async function sendStretches(connection: Connection, task: ChannelTask, work: ChannelWork): Promise<void> {
  const stretches = Stretches.of(task.stretches);
  const cursor = new Int32Array(task.cursor);
  const compression = leafCompression(task.compress, task.compressions);
  const pool = new BatchPool(batchLimit(task.bandwidth), compression);
  /** The next stretch, asked about a stretch ahead so that the answer is there when it is needed. */
  const claim = async (): Promise<Stretch | undefined> => {
    const stretch = stretches.at(Atomics.add(cursor, 0, 1));
    if (stretch === undefined || !task.holds) return stretch;
    const { region, first, end } = stretch;
    await connection.sendControl({ kind: 'ask', region, first, end });
    return stretch;
  };

  let next = await claim();
  while (next !== undefined) {
    const stretch = next;
    next = await claim();
    const holdings = task.holds ? new HoldingsReader(connection, [stretch]) : undefined;
    const [reads, manifest] = [work.reads[stretch.region], work.manifest[stretch.region]];
    if (reads === undefined || manifest === undefined) throw new RangeError(`there is no region ${stretch.region}`);
    await sendLeaves(reads, stretch.scan, {
      connection,
      pool,
      region: stretch.region,
      announcer: announcerOf(task.dialect, connection, pagesOf(stretch), work.gauges),
      holdings,
      manifest,
      counts: work.gauges,
    });
    await holdings?.drain();
  }
}

const port = parentPort;
if (port === null) throw new Error('this module is the thread of a channel');
const stop = new AbortController();
port.on('message', ({ code, message }: ChannelStop) => {
  stop.abort(new BallastError(code, message));
});
const report = (message: ChannelReport): void => {
  const moved = message.kind === 'finished' ? message.entries.flatMap(buffersOf) : [];
  port.postMessage(message, moved as ArrayBuffer[]);
};
report({ kind: 'started' });
// Not awaited here: the bundle is CommonJS.
void runChannel(workerData as ChannelTask, report, stop.signal)
  .catch((error: unknown) => {
    const { code, message } = BallastError.from(error);
    report({ kind: 'failed', code, message });
  })
  .finally(() => {
    port.close();
  });
