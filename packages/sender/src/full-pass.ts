import type { Compression } from '@ballast/shared/compression';
import type { BallastError } from '@ballast/shared/errors';
import type { RegionManifest } from '@ballast/shared/integrity';
import { Cause, type SideMeasurement } from '@ballast/shared/measure';
import { ExtentSet, PAGE_SIZE } from '@ballast/shared/memory';
import { Dialect } from '@ballast/shared/protocol';
import type { Address, Connection, TlsDialOptions } from '@ballast/shared/transport';
import { announceBalloonMap, announcerOf, type AnnounceCounts } from './announcer.js';
import { Channels } from './channel/channels.js';
import { Stretches } from './channel/stretches.js';
import { leafCompression, type CompressionChoice } from './compression/choice.js';
import { aborted } from './connect.js';
import { HoldingsReader, wholeRegions } from './holdings-reader.js';
import { sendLeaves, type WalkCounts } from './leaf-sender.js';
import { BatchPool, batchLimit } from './page-batch.js';
import type { MemorySource } from './source/memory-source.js';
import type { RegionPlan } from './strategy.js';

/** Milliseconds that a channel may take to connect: the session's connection stands. */
const CONNECT_MS = 4000;

export interface FullPassOptions {
  readonly source: MemorySource;
  /** What is to be read of each region, and what is free. */
  readonly plans: readonly RegionPlan[];
  readonly dialect: Dialect;
  readonly compress: CompressionChoice;
  /** What both sides agreed on for it. */
  readonly compressions: readonly Compression[];
  /** Bytes a second that are sent at most; Infinity for no cap. */
  readonly bandwidth: number;
  /** Where channels connect to, as the session's connection did, and which session they join. */
  readonly to: Address;
  readonly tls: TlsDialOptions | undefined;
  readonly timeoutMs: number;
  readonly session: Uint8Array;
  /** Where the time of all threads is noted; undefined when nobody wants to know. */
  readonly measurement: SideMeasurement | undefined;
  /** What all connections of the session together have cost: rises as it is sent. */
  readonly announced: AnnounceCounts;
  readonly walked: WalkCounts;
}

/**
 * All of memory once: every page that may hold something is read, scanned, hashed, and sent if the destination lacks
 * it, over the session's own connection or over channels of it.
 */
export class FullPass {
  /** For whoever sends leaves again later. */
  readonly pool: BatchPool;
  readonly #options: FullPassOptions;
  #channels: Channels | undefined;
  #channelWireBytes = 0;
  #foundNoRoom = false;

  constructor(options: FullPassOptions) {
    this.#options = options;
    this.pool = new BatchPool(batchLimit(options.bandwidth), leafCompression(options.compress, options.compressions));
  }

  /** Whether its channels failed because there was no more of something that they need: another pass does without. */
  get foundNoRoom(): boolean {
    return this.#foundNoRoom;
  }

  /** Bytes of pages that channels have scanned, and that `walked` does not have yet. */
  get scannedBytes(): number {
    return this.#channels?.scannedBytes ?? 0;
  }

  /** Bytes of pages that channels have sent, and that `walked` does not have yet. */
  get sentBytes(): number {
    return this.#channels?.sentBytes ?? 0;
  }

  /** Bytes in both directions of all channels. */
  get wireBytes(): number {
    return this.#channelWireBytes + (this.#channels?.wireBytes ?? 0);
  }

  /**
   * Sends it.
   * @param agreed what the receiver said in its welcome: whether it holds something, and how many channels it grants
   * @param manifest gets an entry for each leaf that holds anything
   * @throws BallastError SOURCE_CHANGED, READ, or the failure of the connection or of a channel
   */
  async send(
    connection: Connection,
    agreed: { readonly holds: boolean; readonly channels: number },
    manifest: readonly RegionManifest[],
  ): Promise<void> {
    const { source, plans, dialect, announced, walked, measurement } = this.#options;
    const { stopwatch } = connection;
    if (agreed.channels > 0) this.#channels = this.#openChannels(agreed.channels, agreed.holds);
    else connection.boundKernelBuffers(1);

    // The balloon map once, ahead of all pages, unless the dialect has only whiteouts.
    if (dialect !== Dialect.whiteouts) {
      stopwatch.switchTo(Cause.sendMap);
      for (const [region, { free }] of plans.entries()) await announceBalloonMap(connection, region, free, announced);
    }

    if (this.#channels !== undefined) {
      stopwatch.switchTo(Cause.wait);
      const accounts = await Promise.race([this.#channels.finish(manifest), thrown(connection.failed())]);
      for (const account of accounts) measurement?.add(account);
      stopwatch.switchTo(Cause.agree);
      await this.close(aborted());
    } else {
      const regionBytes = source.regions.map(({ bytes }) => bytes);
      const holdings = agreed.holds ? new HoldingsReader(connection, wholeRegions(regionBytes)) : undefined;
      for (const [index, region] of source.regions.entries()) {
        const entries = manifest[index];
        if (entries === undefined) throw new RangeError(`there is no region ${index}`);
        await sendLeaves(region.reads, plans[index]?.scan ?? ExtentSet.empty, {
          connection,
          pool: this.pool,
          region: index,
          announcer: announcerOf(
            dialect,
            connection,
            { region: index, first: 0, end: region.bytes / PAGE_SIZE },
            announced,
          ),
          holdings,
          manifest: entries,
          counts: walked,
        });
      }
      await holdings?.drain();
    }
    stopwatch.switchTo(Cause.agree);
    for (const region of source.regions) region.checkSize();
  }

  /** Ends the channels, for `reason` where they are not done, and takes over what they have counted. */
  async close(reason: BallastError): Promise<void> {
    const channels = this.#channels;
    if (channels === undefined) return;
    await channels.close(reason);
    this.#channels = undefined;
    this.#foundNoRoom = channels.foundNoRoom;
    const { announced, walked } = this.#options;
    walked.scannedBytes += channels.scannedBytes;
    walked.sentBytes += channels.sentBytes;
    walked.tableBytes += channels.tableBytes;
    walked.storedBytes += channels.storedBytes;
    announced.whiteouts += channels.whiteouts;
    announced.mapBytes += channels.mapBytes;
    this.#channelWireBytes += channels.wireBytes;
  }

  #openChannels(count: number, holds: boolean): Channels {
    const { source, plans, dialect, compress, compressions, bandwidth, to, tls, timeoutMs, session, measurement } =
      this.#options;
    const regionBytes = source.regions.map(({ bytes }) => bytes);
    return Channels.start(count, {
      to,
      tls,
      connectMs: Math.min(timeoutMs, CONNECT_MS),
      timeoutMs,
      bandwidth: bandwidth / count,
      session,
      measure: measurement !== undefined,
      dialect,
      compress,
      compressions,
      holds,
      channels: count,
      regions: source.regions.map(({ fd, path, bytes, method }) => ({ fd, path, bytes, method })),
      stretches: Stretches.cut(plans, regionBytes).shared,
      cursor: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT),
    });
  }
}

/** @throws what `failure` resolves with */
async function thrown(failure: Promise<BallastError>): Promise<never> {
  throw await failure;
}
