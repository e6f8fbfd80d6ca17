import { setImmediate } from 'node:timers/promises';
import { isAvailable, type Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { everyInterval, type TransferResult } from '@ballast/shared/events';
import { manifestRoot } from '@ballast/shared/integrity';
import { Cause, describeMachine } from '@ballast/shared/measure';
import { MAX_RESEND_LEAVES, encodeAccount, type ControlOf } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';
import { Basis } from './basis.js';
import { Channels, channelsGranted } from './channel/channels.js';
import { Outcome, type Destination } from './destination/destination.js';
import { InPlaceFiles } from './destination/in-place-files.js';
import { checkNothingElse } from './destination/nothing-else.js';
import { PartialFiles } from './destination/partial-files.js';
import { sink } from './destination/sink.js';
import { FrameApplication } from './frame-application.js';
import { receiveDeviceState } from './live/device-state.js';
import { GuestFiles } from './live/guest-files.js';
import type { IncomingGuest } from './live/incoming-guest.js';
import { isQuestion } from './live/question.js';
import type { Caller, Listener } from './listener.js';
import { openOldCopies, type OldCopy } from './old-copy.js';
import { DEFAULT_TIMEOUT_MS, type ReceiveOptions } from './receive-options.js';
import { ReceivedRegion } from './received-region.js';

/** The receiver's side of one memory: the destination, and what each connection does to it. */
export class ReceiveSession {
  readonly #options: ReceiveOptions;
  /** Of `reuse`; opened when a sender has come, since a receiver that waits for long would hold what was replaced since. */
  #old: readonly OldCopy[] = [];
  /** Whether it was said that one of them cannot be read. */
  #oldFailed = false;
  /** The QEMU that waits for a live guest, if one does. */
  readonly #guest: IncomingGuest | undefined;
  /** The live sender that was told that its guest is loaded: from then on it may have sent a commit that got lost. */
  #loadedFor: Uint8Array | undefined;
  /**
   * How far a live guest is. Loaded, it can be taken back, and its sender told that it never ran here; once committed
   * it is not, unless its QEMU refuses to let it run.
   */
  #guestIs: 'arriving' | 'loaded' | 'committed' = 'arriving';
  /** Ends the wait for the commit of a guest that is loaded. */
  #takeBack: ((reason: BallastError) => void) | undefined;
  #destination: Destination | undefined;
  /** Whether something of the destination was written on a connection before. */
  #began = false;
  /** Who wrote it first. */
  #firstSender: Uint8Array | undefined;
  #hadOtherSender = false;
  #published: Buffer | undefined;
  /** Whether nothing of a memory came on the connection at hand, from a sender that may not have meant to send any. */
  #wasOnlyAsked = false;
  #started: number | undefined;
  #earlierWireBytes = 0;
  /** Of the connection at hand. */
  #channels: Channels | undefined;
  /** Whether there was no room for the threads of channels before: what is begun again goes over one connection. */
  #hasNoRoom = false;

  /** @param guest whose memory is the destination; it belongs to the session from here on */
  constructor(options: ReceiveOptions, guest?: IncomingGuest) {
    this.#options = options;
    this.#guest = guest;
  }

  /** Whether the destination cannot be had, for as long as another receiver works on it. */
  get isShutOut(): boolean {
    return this.#destination === undefined;
  }

  /** Whether no other connection can go on from here: the waiting guest had begun to take a guest in. */
  get isSpoiled(): boolean {
    return this.#guest?.isPrepared === true;
  }

  /** Whether what is here was begun by another sender than the last one, who must not take it from him by failing. */
  get hadOtherSender(): boolean {
    return this.#hadOtherSender;
  }

  /** Whether the last connection brought nothing but a question about another move. */
  get wasOnlyAsked(): boolean {
    return this.#wasOnlyAsked;
  }

  /**
   * Does all of the work on one connection, which is ended if that fails.
   * @throws BallastError why it failed; retryable when another connection may go on
   */
  async serve(caller: Caller, listener: Listener): Promise<TransferResult> {
    const { connection, hello } = caller;
    const onAbort = (): void => {
      if (this.#guestIs === 'arriving') connection.fail(interrupted());
      else this.#takeBack?.(interrupted());
    };
    const { signal } = this.#options;
    this.#wasOnlyAsked = isQuestion(hello);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted === true) onAbort();
      checkCompression(hello.compress);
      await this.#guest?.checkWaits();
      return await this.#transfer(caller, this.#destinationFor(hello), listener);
    } catch (error) {
      const reason = await this.#abandonGuest(BallastError.from(error));
      listener.routeChannels(undefined);
      await Promise.all([this.#endConnection(connection, reason), this.#closeChannels(reason)]);
      throw reason;
    } finally {
      this.#earlierWireBytes += connection.bytesIn + connection.bytesOut;
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /**
   * Makes sure that the sender knows: waits for its goodbye, and when its connection broke just then, for it to come
   * back and ask. Nobody else who comes meanwhile makes the wait longer.
   */
  async acknowledge(caller: Caller, listener: Listener, patienceMs: number): Promise<void> {
    let deadline = 0;
    for (let current: Caller | undefined = caller; current !== undefined;) {
      const { connection, hello } = current;
      try {
        if (current !== caller) await this.#tellPublished(current, caller);
        await this.#goodbye(connection, patienceMs);
        await connection.close();
        return;
      } catch (error) {
        await connection.abort(BallastError.from(error));
      }
      if (Buffer.compare(hello.session, caller.hello.session) === 0) deadline = performance.now() + patienceMs;
      try {
        current = await listener.nextCaller(this.#options.signal, Math.max(0, deadline - performance.now()));
      } catch {
        return;
      }
    }
  }

  /** @throws the connection's failure; TIMEOUT; ABORTED by the signal */
  async #goodbye(connection: Connection, patienceMs: number): Promise<void> {
    const { signal } = this.#options;
    const onAbort = (): void => {
      connection.fail(new BallastError(ErrorCode.ABORTED, 'the receiver ends'));
    };
    const timer = setTimeout(() => {
      connection.fail(
        new BallastError(ErrorCode.TIMEOUT, 'the sender did not say that it knows of the published files'),
      );
    }, patienceMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted === true) onAbort();
      await connection.expect('goodbye');
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /**
   * After a live move that failed when its sender may have committed: tells that sender, should it come and ask, that
   * the guest never ran here, so that it may go on where it was.
   */
  async disown(listener: Listener, patienceMs: number): Promise<void> {
    const deadline = performance.now() + patienceMs;
    while (this.#loadedFor !== undefined && performance.now() < deadline) {
      const caller = await listener
        .nextCaller(this.#options.signal, deadline - performance.now())
        .catch(() => undefined);
      if (caller === undefined) return;
      const { connection, hello } = caller;
      try {
        if (Buffer.compare(hello.session, this.#loadedFor) !== 0)
          throw new BallastError(ErrorCode.BUSY, 'this receiver is done with its guest; start another');
        await connection.sendControl({ kind: 'never-published' });
        await connection.close();
        return;
      } catch (error) {
        await connection.abort(BallastError.from(error));
      }
    }
  }

  /** @returns what is left for a later try, in words */
  close(outcome: Outcome): string | undefined {
    for (const copy of this.#old) copy.close();
    this.#guest?.close();
    return this.#destination?.close(outcome);
  }

  /** A guest that has begun to take another in must never run when that fails: it is quit before the sender hears of it. */
  async #abandonGuest(reason: BallastError): Promise<BallastError> {
    if (this.#guest?.isPrepared !== true || this.#published !== undefined) return reason;
    if (await this.#guest.quit()) return reason;
    this.#loadedFor = undefined;
    return new BallastError(
      reason.code,
      `${reason.message}; the waiting QEMU cannot be ended: end it by hand, and never let it run`,
      { cause: reason },
    );
  }

  async #tellPublished({ connection, hello }: Caller, first: Caller): Promise<void> {
    if (this.#published === undefined || Buffer.compare(hello.session, first.hello.session) !== 0) {
      throw new BallastError(ErrorCode.BUSY, 'this receiver is done with its memory; start another');
    }
    await connection.sendControl({ kind: 'published-before', root: this.#published });
  }

  /** The receiver's side of the dialogue, as the data flows. */
  async #transfer(caller: Caller, destination: Destination, listener: Listener): Promise<TransferResult> {
    const { connection, hello, address, measurement } = caller;
    const { stopwatch } = connection;
    if (!this.#wasOnlyAsked) this.#started ??= performance.now();
    const holds = destination.holds || this.#began || this.#old.length > 0;
    if (this.#began) for (const store of destination.stores) store.mayHoldPages = true;
    const bases = destination.stores.map((store, index) =>
      holds ? new Basis(store, this.#old[index], this.#onOldFailed) : undefined,
    );
    const regions = destination.stores.map(
      (store, index) => new ReceivedRegion(index, store, destination.readsBack, bases[index], stopwatch),
    );
    this.#began = destination.readsBack;
    this.#firstSender ??= hello.session;
    this.#hadOtherSender = Buffer.compare(this.#firstSender, hello.session) !== 0;
    const takes = hello.offers?.filter(isAvailable) ?? [];
    const compressions = [hello.compress, ...takes];
    const channels = this.#hasNoRoom ? 0 : channelsGranted(hello.channels, this.#memoryBytes(regions));
    if (channels > 0) this.#openChannels(caller, channels, { destination, holds, compressions, listener, regions });
    else connection.boundKernelBuffers(1);

    await connection.sendControl({ kind: 'welcome', holds, channels, ...(takes.length > 0 && { takes }) });
    this.#options.onEvent?.({ event: 'connected', peer: address, resumes: holds, channels: Math.max(channels, 1) });
    const progress = this.#reportProgress(connection, regions);
    try {
      // What is here is told while what is missing comes in: neither side waits for the other to finish.
      const [end] = await Promise.all([
        this.#receiveFrames(caller, regions, compressions),
        channels > 0 ? undefined : tellAll(connection, bases),
      ]);

      // What the files hold now, read back leaf by leaf, must be what the sender has.
      const manifest = regions.map((region) => region.manifest);
      const root = manifestRoot(manifest);
      if (!root.equals(end.root)) {
        throw new BallastError(
          ErrorCode.DIGEST_MISMATCH,
          `what was written here (root ${root.toString('hex')}) is not what the sender has (${Buffer.from(end.root).toString('hex')}); nothing was published`,
        );
      }
      for (const [index, region] of regions.entries()) {
        await checkNothingElse(region.store, region.manifest, index, async () => {
          await setImmediate();
          if (connection.failure !== undefined) throw connection.failure;
        });
      }
      await destination.sync();
      const guest = this.#guest;
      // It opens while the word travels: the other guest stands still.
      await Promise.all([connection.sendControl({ kind: 'verified', root }), guest?.prepare()]);

      // The device state of a live guest, which then stands still here, too.
      let runs = false;
      if (guest !== undefined) {
        runs = await receiveDeviceState(connection, guest);
        this.#loadedFor = hello.session;
        this.#guestIs = 'loaded';
        await connection.sendControl({ kind: 'loaded' });
      }

      await this.#commit(connection);
      if (guest !== undefined) this.#guestIs = 'committed';
      if (guest !== undefined && runs) await this.#resume(guest);
      await destination.publish();
      this.#published = root;
      await connection.sendControl({ kind: 'published' }).catch(() => undefined);
      if (measurement !== undefined) {
        const account = encodeAccount(measurement.account(), describeMachine());
        await connection.sendControl(account).catch(() => undefined);
      }
      return {
        root: root.toString('hex'),
        memoryBytes: this.#memoryBytes(regions),
        ...end.summary,
        wireBytes: this.#wireBytes(connection),
        seconds: this.#seconds(),
      };
    } finally {
      progress.stop();
    }
  }

  /**
   * Waits for the commit.
   * @throws BallastError ABORTED by the signal, which leaves the connection as it is; the connection's failure
   */
  async #commit(connection: Connection): Promise<void> {
    const takenBack = new Promise<never>((_, reject) => {
      this.#takeBack = reject;
    });
    try {
      if (this.#options.signal?.aborted === true) throw interrupted();
      await Promise.race([connection.expect('commit'), takenBack]);
    } finally {
      this.#takeBack = undefined;
    }
  }

  /**
   * From here on the guest may run here, and nothing that happens to the connection changes that.
   * @throws BallastError when it does not run, or nobody can tell
   */
  async #resume(guest: IncomingGuest): Promise<void> {
    try {
      await guest.resume();
    } catch (error) {
      const reason = BallastError.from(error);
      // QEMU refused, and so it never ran. Where nobody can tell, nothing is said that would let it run twice.
      if (reason.code === ErrorCode.GUEST) this.#guestIs = 'loaded';
      else this.#loadedFor = undefined;
      throw reason;
    }
  }

  /** Tells the sender why this failed. One that may have committed learns that the guest never ran here, and no more. */
  async #endConnection(connection: Connection, reason: BallastError): Promise<void> {
    const neverRan = this.#guestIs === 'loaded' && this.#loadedFor !== undefined;
    if (!neverRan || connection.failure !== undefined) {
      await connection.abort(reason);
      return;
    }
    // An abort behind this word might be read before it.
    await connection.sendControl({ kind: 'never-published' }).catch(() => undefined);
    await connection.close();
  }

  /** Applies frames as they come, and asks again for leaves that arrived wrong. Returns the last `end`. */
  async #receiveFrames(
    { connection, hello }: Caller,
    regions: readonly ReceivedRegion[],
    compressions: readonly Compression[],
  ): Promise<ControlOf<'end'>> {
    const { dialect } = hello;
    const frames = new FrameApplication({ dialect, compressions }, regions, connection.stopwatch, this.#onDamaged);
    connection.stopwatch.switchTo(Cause.data);
    let round = 1;
    for (;;) {
      const { control, frame } = await connection.next();
      this.#wasOnlyAsked = false;
      if (frame !== undefined) {
        frames.apply(frame);
        continue;
      }
      if (control.kind === 'round' && this.#guest !== undefined && control.number === round + 1) {
        await this.#channelsDone(connection);
        for (const region of regions) region.beginRound();
        const again = wrongLeaves(regions).slice(0, MAX_RESEND_LEAVES);
        await connection.sendControl({ kind: 'received', round, again });
        round++;
        continue;
      }
      connection.stopwatch.switchTo(Cause.agree);
      if (control.kind !== 'end')
        throw new BallastError(ErrorCode.PROTOCOL, `the sender sent '${control.kind}' in the middle of the memory`);
      await this.#channelsDone(connection);
      for (const region of regions) region.checkComplete();
      const wrong = wrongLeaves(regions);
      if (wrong.length === 0) return control;
      await connection.sendControl({ kind: 'resend', leaves: wrong.slice(0, MAX_RESEND_LEAVES) });
    }
  }

  readonly #onDamaged = (region: number, leaf: number): void => {
    this.#options.onEvent?.({
      event: 'warning',
      code: ErrorCode.DIGEST_MISMATCH,
      message: `leaf ${leaf} of memory file ${region} is not what was sent; it will be asked for again`,
    });
  };

  readonly #onOldFailed = ({ code, message }: BallastError): void => {
    if (this.#oldFailed) return;
    this.#oldFailed = true;
    this.#options.onEvent?.({
      event: 'warning',
      code,
      message: `${message}; what the older copy holds there comes over the wire instead`,
    });
  };

  #openChannels({ connection, hello, measurement }: Caller, count: number, into: ChannelTerms): void {
    const { onEvent, timeoutMs } = this.#options;
    const { destination, holds, compressions, listener, regions } = into;
    const channels = new Channels(
      count,
      {
        session: hello.session,
        measure: measurement !== undefined,
        tls: listener.tls,
        timeoutMs: timeoutMs ?? DEFAULT_TIMEOUT_MS,
        dialect: hello.dialect,
        compressions,
        stores: destination.stores.map((store) => store.shared),
        readsBack: destination.readsBack,
        holds,
        channels: count,
        old: this.#old.map((copy) => copy.shared),
      },
      {
        onReceived: ({ parts, account }) => {
          if (account !== undefined) measurement?.add(account);
          for (const [index, part] of parts.entries()) regions[index]?.absorb(part);
        },
        onDamaged: this.#onDamaged,
        onOldFailed: this.#onOldFailed,
        onStranger: ({ code, message }) => onEvent?.({ event: 'warning', code, message }),
        onFailed: (error) => connection.fail(error),
      },
    );
    this.#channels = channels;
    listener.routeChannels((candidate) => {
      channels.take(candidate);
    });
  }

  /** Waits until all that comes on channels is there; the session's own connection goes on alone. */
  async #channelsDone(connection: Connection): Promise<void> {
    const channels = this.#channels;
    if (channels === undefined) return;
    const failed = connection.failed().then((failure) => {
      throw failure;
    });
    connection.stopwatch.switchTo(Cause.wait);
    await Promise.race([channels.finished(), failed]);
    connection.stopwatch.switchTo(Cause.agree);
    await this.#closeChannels(new BallastError(ErrorCode.ABORTED, 'the receiver ends'));
  }

  /** Ends the threads, and takes over what they have counted. */
  async #closeChannels(reason: BallastError): Promise<void> {
    const channels = this.#channels;
    if (channels === undefined) return;
    await channels.close(reason);
    this.#channels = undefined;
    this.#hasNoRoom ||= channels.foundNoRoom;
    this.#earlierWireBytes += channels.wireBytes;
  }

  /** The destination of the connection before, if it fits; a new one otherwise. */
  #destinationFor({ regions, dataBytesAtMost, live }: ControlOf<'hello'>): Destination {
    if (live !== (this.#guest !== undefined)) {
      throw new BallastError(
        ErrorCode.MISMATCH,
        live
          ? 'the sender moves a running guest and this receiver waits for files; give the receiver --qmp with the monitor of a waiting QEMU'
          : 'this receiver waits for a running guest and the sender sends files; give the sender --qmp with the monitor of its guest',
      );
    }
    if (this.#destination !== undefined) {
      const sizes = this.#destination.stores.map((store) => store.bytes);
      if (sizes.length === regions.length && sizes.every((size, index) => size === regions[index]))
        return this.#destination;
      this.#destination.close(Outcome.interrupted);
      this.#destination = undefined;
      this.#began = false;
    }
    if (this.#old.length === 0) this.#old = openOldCopies(this.#options.reuse ?? []);
    this.#destination = openDestination(regions, dataBytesAtMost, this.#options, this.#guest);
    return this.#destination;
  }

  #reportProgress(connection: Connection, regions: readonly ReceivedRegion[]): { stop(): void } {
    const totalBytes = this.#memoryBytes(regions);
    return everyInterval(() => {
      this.#options.onEvent?.({
        event: 'progress',
        phase: 'receive',
        doneBytes: regions.reduce((sum, region) => sum + region.coveredBytes, this.#channels?.coveredBytes ?? 0),
        totalBytes,
        wireBytes: this.#wireBytes(connection),
        seconds: this.#seconds(),
      });
    });
  }

  #memoryBytes(regions: readonly ReceivedRegion[]): number {
    return regions.reduce((sum, region) => sum + region.store.bytes, 0);
  }

  #wireBytes(connection: Connection): number {
    const channelBytes = this.#channels?.wireBytes ?? 0;
    return this.#earlierWireBytes + channelBytes + connection.bytesIn + connection.bytesOut;
  }

  #seconds(): number {
    return (performance.now() - (this.#started ?? performance.now())) / 1000;
  }
}

/** What holds for all channels of a connection. */
interface ChannelTerms {
  readonly destination: Destination;
  readonly holds: boolean;
  readonly compressions: readonly Compression[];
  readonly listener: Listener;
  /** Where what the channels receive is put together. */
  readonly regions: readonly ReceivedRegion[];
}

function interrupted(): BallastError {
  return new BallastError(ErrorCode.ABORTED, 'the receiver was interrupted before the transfer was complete');
}

/** [region, leaf] of all that did not arrive as it was sent. */
function wrongLeaves(regions: readonly ReceivedRegion[]): [number, number][] {
  return regions.flatMap((region, index) => region.wrongLeaves.map((leaf): [number, number] => [index, leaf]));
}

async function tellAll(connection: Connection, bases: readonly (Basis | undefined)[]): Promise<void> {
  for (const [region, basis] of bases.entries()) await basis?.tell(connection, region);
}

/** @throws BallastError MISMATCH and all that opening a destination throws */
function openDestination(
  regions: readonly number[],
  dataBytesAtMost: number,
  options: ReceiveOptions,
  guest: IncomingGuest | undefined,
): Destination {
  if (options.sink === true) return sink(regions);
  const neededBytes = options.checkSpace === false ? undefined : dataBytesAtMost;
  if (guest !== undefined) {
    if (regions.length === guest.files.length) return GuestFiles.open(guest.files, regions, neededBytes);
    throw new BallastError(
      ErrorCode.MISMATCH,
      `the sender's guest has ${regions.length} memory backend(s) and the waiting one ${guest.files.length}; start both with the same`,
    );
  }
  if (regions.length !== options.files.length) {
    throw new BallastError(
      ErrorCode.MISMATCH,
      `the sender has ${regions.length} memory file(s) and the receiver was given ${options.files.length} name(s); give as many on both sides, in the same order`,
    );
  }
  if (options.inPlace === true) return InPlaceFiles.open(options.files, regions, neededBytes);
  return PartialFiles.open({ paths: options.files, regionBytes: regions, force: options.force === true, neededBytes });
}

/** @throws BallastError MISMATCH when this Node.js cannot restore it */
function checkCompression(compression: Compression): void {
  if (isAvailable(compression)) return;
  throw new BallastError(
    ErrorCode.MISMATCH,
    `the sender compresses with ${compression}, which Node.js ${process.version} of the receiver does not have; run 22.15 or newer there, or let the sender compress with lz4`,
  );
}
