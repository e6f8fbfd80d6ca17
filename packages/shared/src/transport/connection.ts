import type { Socket } from 'node:net';
import { crc32 } from 'node:zlib';
import { BallastError, ErrorCode, isErrorCode, systemCode } from '../errors.js';
import {
  FrameType,
  PREAMBLE,
  decodeControl,
  encodeControl,
  encodeHeader,
  type ControlKind,
  type ControlMessage,
  type ControlOf,
  type Frame,
  type FrameDecoder,
  type Opening,
} from '../protocol/index.js';
import { ByteCount, Cause, noStopwatch, type Stopwatch } from '../measure/index.js';
import { acknowledgedBytes } from './acknowledged.js';
import { duplicateDescriptor } from './descriptor.js';
import { boundKernelBuffers } from './kernel-buffers.js';
import { UNPACED_SEGMENTS, inFlightLimit, paceSocket } from './pacing.js';
import { ReceiveThreshold } from './receive-threshold.js';
import { explainHandshake } from './tls-identity.js';
import { writerOf, type Write } from './writes.js';

/**
 * Bytes handed to the socket and not yet taken by the kernel, at which `send` waits: the kernel's own buffer keeps the link
 * busy. No more than a frame waits here, so that the next one is made in the same memory, while the cache still has it.
 */
const MAX_IN_FLIGHT = 1 << 20;
/**
 * Milliseconds after which a side that has nothing to say sends a heartbeat: a quarter of its timeout, and often enough
 * for a peer that has the shortest timeout that the programs take, which need not be ours.
 */
const LONGEST_QUIET_MS = 250;
const HEARTBEATS_PER_TIMEOUT = 4;
/**
 * Bytes a second that count as a sign of life within a frame, far more than heartbeats are: where bytes were lost on the
 * way, a frame waits for more than its sender has, and heartbeats would fill it up for hours.
 */
const SLOWEST_BYTES_PER_SECOND = 2048;
/** Frames that wait for `next`; a peer that sends more has to wait, too. */
const MAX_INBOX = 16;
/** Where bytes go that nobody wants any more. */
const DISCARDED = Buffer.alloc(65536);
/** Milliseconds that a closing side waits for the other to read why: again while much is still leaving, and in all. */
const LINGER_MS = 1500;
const LONGEST_LINGER_MS = 10_000;
/** Bytes that must arrive meanwhile for another wait. */
const LINGER_BYTES = 65536;

/** A frame to send: the header's fields that are not derived, and the payload in pieces. */
export interface OutgoingFrame {
  readonly type: FrameType;
  readonly region?: number;
  readonly count?: number;
  readonly base?: number;
  /** Pieces of the payload whose bytes the payload checksum covers. */
  readonly checked: Buffer;
  /** The rest of the payload: page bytes, which their leaf's digest covers. */
  readonly pages?: Buffer;
}

/** What came in: a control message, or a bulk frame that is valid until the next call of `next`. */
export type Incoming =
  | { readonly control: ControlMessage; readonly frame?: undefined }
  | { readonly control?: undefined; readonly frame: Frame };

/** What a connection had sent when it was given away, so that its next owner goes on from there. */
export interface SentBefore {
  /** Heartbeats, while nobody knew yet what the connection was to be. */
  readonly frames: number;
  readonly bytes: number;
}

export interface ConnectionOptions {
  /** Milliseconds without a byte from the peer after which it counts as gone. */
  readonly timeoutMs: number;
  /** How the peer is called in messages: "the receiver at host-b:7700". */
  readonly peer: string;
  /** What was sent on the socket before it came here, this side's preamble first. Default: nothing. */
  readonly sent?: SentBefore;
  /** Whether nobody knows yet who the peer is: before it has said what it wants, nothing else is taken from it. */
  readonly isStranger?: boolean;
}

/**
 * One TCP or TLS connection as a stream of frames in both directions. It owns the socket: whatever happens, `close` or
 * `abort` ends it. A failure (broken stream, silence, the peer's `abort`, a caller's `fail`) is kept and thrown from
 * every later `send` and `next`, so a caller that is busy sending learns of it, too.
 *
 * Heartbeats are sent and swallowed here; nobody above sees them.
 */
export class Connection {
  readonly peer: string;
  /** Told when this connection waits for the link; whoever works for it charges its time there, too. */
  stopwatch: Stopwatch = noStopwatch;
  #socket: Socket;
  #writeOut: Write;
  #decoder: FrameDecoder;
  #threshold: ReceiveThreshold | undefined;
  #timeoutMs: number;
  #quietMs: number;

  #sequence = 0;
  #inFlight = 0;
  #maxInFlight = MAX_IN_FLIGHT;
  #bytesOut: ByteCount;
  #bytesIn = new ByteCount();
  #lastOut = Date.now();
  /** When the peer last sent a whole frame, or a good piece of one. */
  #lastIn = Date.now();
  /** Bytes that came since then. */
  #bytesOfFrame = 0;
  #clock: NodeJS.Timeout;
  #suspectedSilence = false;

  #failure: BallastError | undefined;
  /** Whether the peer has closed, and nothing had failed before. */
  #ended = false;
  #discarding = false;
  #inbox: Incoming[] = [];
  #lent: Frame | undefined;
  #stalled: Buffer[] = [];
  #wakeReader: (() => void) | undefined;
  #writers: (() => void)[] = [];
  #whenFailed: ((error: BallastError) => void)[] = [];
  #closed: Promise<void>;

  /**
   * @param socket connected; its bytes reach `decoder` either straight (see `reads.ts`) or by the `data` events
   *   that this constructor listens to
   */
  constructor(socket: Socket, decoder: FrameDecoder, options: ConnectionOptions) {
    this.#socket = socket;
    this.#writeOut = writerOf(socket);
    this.#decoder = decoder;
    decoder.admitsBulk = options.isStranger !== true;
    this.#threshold = ReceiveThreshold.of(socket);
    this.#timeoutMs = options.timeoutMs;
    this.#quietMs = Math.min(options.timeoutMs / HEARTBEATS_PER_TIMEOUT, LONGEST_QUIET_MS);
    this.peer = options.peer;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, Math.min(options.timeoutMs, 15_000));
    socket.on('error', (error) => {
      this.fail(this.#lost(error));
    });
    socket.on('end', () => {
      this.#ended = this.#failure === undefined;
      this.#wakeReader?.();
    });
    this.#closed = new Promise((resolve) => {
      socket.on('close', () => {
        clearInterval(this.#clock);
        this.fail(this.#lost());
        resolve();
      });
    });
    this.#clock = setInterval(
      () => {
        this.#tick();
      },
      Math.max(20, this.#quietMs / 2),
    );
    this.#bytesOut = new ByteCount(options.sent?.bytes);
    if (options.sent === undefined) this.#write([PREAMBLE]);
    else this.#sequence = options.sent.frames;
  }

  /** Bytes that this side has sent, preamble and headers included. */
  get bytesOut(): number {
    return this.#bytesOut.bytes;
  }

  /** Bytes that came from the peer and were decoded. */
  get bytesIn(): number {
    return this.#bytesIn.bytes;
  }

  /** Bytes of TCP that the other host has acknowledged; where that is not known, bytes that this kernel has taken. */
  get bytesArrived(): number {
    return acknowledgedBytes(this.#socket) ?? this.bytesOut - this.#inFlight;
  }

  /** Why the connection is unusable, once it is. */
  get failure(): BallastError | undefined {
    return this.#failure;
  }

  /**
   * Bounds what the kernel holds for this connection; see `boundKernelBuffers`.
   * @param connections how many carry the session's pages
   */
  boundKernelBuffers(connections: number): void {
    boundKernelBuffers(this.#socket, connections);
  }

  /**
   * Caps what this side sends, from now on; see `paceSocket`.
   * @throws BallastError USAGE where that is not possible; the connection's failure
   */
  async pace(bytesPerSecond: number): Promise<void> {
    paceSocket(this.#socket, bytesPerSecond);
    this.#maxInFlight = Math.min(this.#maxInFlight, inFlightLimit(bytesPerSecond));
    // One by one, or TLS would make a single segment of them.
    for (let segment = 0; segment < UNPACED_SEGMENTS; segment++) {
      this.#sendHeartbeat();
      await this.flushed();
    }
  }

  /** Where the next bytes from the peer are to be written. */
  target(): Buffer {
    return this.#isFailed() || this.#discarding ? DISCARDED : this.#decoder.target();
  }

  /** Says that `count` bytes were written to what `target` returned. */
  received(count: number): void {
    this.#heard(count);
    if (this.#discarding || this.#isFailed()) return;
    try {
      const { opening } = this.#decoder;
      this.#decoder.advance(count);
      if (opening !== this.#decoder.opening) this.#wakeReader?.();
      this.#collect();
      this.#threshold?.expect(this.#decoder.missing);
    } catch (error) {
      this.fail(BallastError.from(error));
    }
  }

  /** Takes bytes that came in a buffer of their own. */
  receivedChunk(chunk: Buffer): void {
    this.#heard(chunk.length);
    if (this.#discarding || this.#isFailed()) return;
    this.#stalled.push(chunk);
    this.#pushStalled();
    if (this.#stalled.length > 0) this.#socket.pause();
  }

  /** Whether more bytes can be taken now; otherwise the socket is to be paused, and `next` resumes it. */
  get wantsBytes(): boolean {
    return this.#canTake && this.#stalled.length === 0;
  }

  /**
   * Sends a frame. Resolves when there is room for another, not when this one has arrived: at most 1 MiB and one
   * frame wait in this process, less when it is paced.
   * @param onFlushed called once the kernel has taken the frame and its buffers may be reused, or never will
   * @throws the connection's failure
   */
  async send(frame: OutgoingFrame, onFlushed?: () => void): Promise<void> {
    this.#throwIfFailed();
    this.#sendNow(frame, onFlushed);
    while (this.#inFlight > this.#maxInFlight) await this.flushed();
  }

  /**
   * Resolves when the kernel has taken another frame.
   * @throws the connection's failure
   */
  async flushed(): Promise<void> {
    this.#throwIfFailed();
    const cause = this.stopwatch.switchTo(Cause.wait);
    await new Promise<void>((resolve) => {
      this.#writers.push(resolve);
    });
    this.stopwatch.switchTo(cause);
    this.#throwIfFailed();
  }

  async sendControl(message: ControlMessage): Promise<void> {
    await this.send({ type: FrameType.control, checked: encodeControl(message) });
  }

  /**
   * The next control message or bulk frame. The frame of the call before becomes invalid.
   * @throws the connection's failure; CONNECTION_LOST when the peer has closed
   */
  async next(): Promise<Incoming> {
    const incoming = await this.#nextBeforeEnd();
    if (incoming === undefined) throw this.fail(this.#lost());
    return incoming;
  }

  /**
   * What the peer's first bytes said that this connection is to be.
   * @throws the connection's failure; CONNECTION_LOST when the peer has closed
   */
  async opening(): Promise<Opening> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#decoder.opening !== undefined) return this.#decoder.opening;
      if (this.#ended) throw this.fail(this.#lost());
      await this.#woken();
    }
  }

  /**
   * Gives the socket away: a descriptor of it, which its new owner closes, and the bytes that were read behind the
   * opening. This object is of no use afterwards.
   * @throws BallastError BUSY when there are no more descriptors
   */
  handOver(): { fd: number; rest: Buffer; sent: SentBefore } {
    const fd = duplicateDescriptor(this.#socket);
    clearInterval(this.#clock);
    this.#failure = new BallastError(ErrorCode.INTERNAL, `the connection to ${this.peer} was given away`);
    this.#socket.destroy();
    return { fd, rest: Buffer.concat(this.#stalled), sent: { frames: this.#sequence, bytes: this.bytesOut } };
  }

  /**
   * The next message, which must be of one of these kinds.
   * @throws BallastError what the peer said when it refused or aborted; PROTOCOL when it said anything else
   */
  async expect<K extends ControlKind>(...kinds: readonly K[]): Promise<ControlOf<K>> {
    const incoming = await this.next();
    const { control } = incoming;
    const isExpected = (message: ControlMessage): message is ControlOf<K> =>
      (kinds as readonly string[]).includes(message.kind);
    if (control !== undefined && isExpected(control)) return control;
    throw this.#unexpected(incoming, kinds.map((kind) => `'${kind}'`).join(' or '));
  }

  /**
   * Waits until the peer, which is to say nothing more, has closed: it does so once it has read all. A side that closes
   * before makes its kernel refuse the peer's next heartbeat, and the peer loses what it has not read yet.
   * @throws the connection's failure; PROTOCOL when the peer says anything else
   */
  async closedByPeer(): Promise<void> {
    const incoming = await this.#nextBeforeEnd();
    if (incoming !== undefined) throw this.#unexpected(incoming, 'nothing more');
  }

  /** Resolves with the failure, once there is one: for who waits for something else meanwhile. */
  async failed(): Promise<BallastError> {
    if (this.#failure !== undefined) return this.#failure;
    return await new Promise((resolve) => {
      this.#whenFailed.push(resolve);
    });
  }

  /** Makes every pending and later call throw `error`, unless an earlier failure is kept already. Returns the one kept. */
  fail(error: BallastError): BallastError {
    this.#failure ??= error;
    for (const tell of this.#whenFailed.splice(0)) tell(this.#failure);
    this.#wakeReader?.();
    this.#wakeWriters();
    return this.#failure;
  }

  /** Ends the connection after what was sent has left. */
  async close(): Promise<void> {
    this.#discard();
    this.#socket.end();
    await this.#closedSoon();
  }

  /**
   * Ends the connection and tells the peer why. What the peer is still sending is read and thrown away for a moment:
   * closing at once would make the kernel reset the connection, and the reason would be lost with it.
   */
  async abort(reason: BallastError): Promise<void> {
    this.fail(reason);
    if (!this.#socket.destroyed && this.#socket.writable) {
      const { code } = reason;
      this.#sendNow({
        type: FrameType.control,
        checked: encodeControl({ kind: 'abort', code, message: reason.message.slice(0, 1024) }),
      });
    }
    await this.close();
  }

  #unexpected({ control, frame }: Incoming, expected: string): BallastError {
    const got = control === undefined ? `a frame of type ${frame.header.type}` : `'${control.kind}'`;
    return new BallastError(ErrorCode.PROTOCOL, `${this.peer} sent ${got} where ${expected} was expected`);
  }

  /** As `next`; undefined when the peer has closed. */
  async #nextBeforeEnd(): Promise<Incoming | undefined> {
    if (this.#lent !== undefined) {
      this.#decoder.recycle(this.#lent);
      this.#lent = undefined;
    }
    for (;;) {
      const incoming = this.#inbox.shift();
      this.#pushStalled();
      if (this.wantsBytes && !this.#socket.destroyed) this.#socket.resume();
      if (incoming !== undefined) {
        this.#lent = incoming.frame;
        return incoming;
      }
      // What failed afterwards, the closed socket at the latest, takes nothing back.
      if (this.#ended) return undefined;
      if (this.#failure !== undefined) throw this.#failure;
      await this.#woken();
    }
  }

  /** Resolves when there may be something to read. */
  async #woken(): Promise<void> {
    const cause = this.stopwatch.switchTo(Cause.wait);
    await new Promise<void>((resolve) => {
      this.#wakeReader = resolve;
    });
    this.stopwatch.switchTo(cause);
    this.#wakeReader = undefined;
  }

  #wakeWriters(): void {
    for (const wake of this.#writers.splice(0)) wake();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #isFailed(): boolean {
    return this.#failure !== undefined;
  }

  #discard(): void {
    this.#discarding = true;
    this.#threshold?.stop();
    this.#stalled = [];
    // The connection may linger, and others with it.
    this.#decoder.abandon();
    if (!this.#socket.destroyed) this.#socket.resume();
  }

  /** Waits for the socket to close. On a slow link what was sent takes its time; a peer that reads nothing gets none. */
  async #closedSoon(): Promise<void> {
    const deadline = Date.now() + LONGEST_LINGER_MS;
    let arrived = this.bytesArrived;
    const timer = setInterval(() => {
      if (this.bytesArrived - arrived < LINGER_BYTES || Date.now() >= deadline) this.#socket.destroy();
      arrived = this.bytesArrived;
    }, LINGER_MS);
    await this.#closed;
    clearInterval(timer);
  }

  /** Whether the next bytes can be taken, wherever they are now. */
  get #canTake(): boolean {
    return this.#discarding || this.#isFailed() || (this.#decoder.canTake && this.#inbox.length < MAX_INBOX);
  }

  #heard(bytes: number): void {
    this.#bytesIn.add(bytes);
    this.#bytesOfFrame += bytes;
    if (this.#bytesOfFrame >= (SLOWEST_BYTES_PER_SECOND * this.#timeoutMs) / 1000) this.#alive();
  }

  #alive(): void {
    this.#lastIn = Date.now();
    this.#bytesOfFrame = 0;
    this.#suspectedSilence = false;
  }

  /** Moves complete frames to the inbox. What the peer says about the connection itself is dealt with on the spot. */
  #collect(): void {
    for (let frame = this.#decoder.shift(); frame !== undefined; frame = this.#decoder.shift()) {
      this.#alive();
      if (frame.header.type !== FrameType.control) {
        this.#inbox.push({ frame });
        continue;
      }
      const control = decodeControl(frame.payload);
      if (control.kind === 'abort' || control.kind === 'refuse') {
        this.#inbox = [];
        throw spokenBy(this.peer, control);
      }
      if (control.kind === 'heartbeat') continue;
      // Who wants to be measured has not said yet what for.
      if (control.kind !== 'measure') this.#decoder.admitsBulk = true;
      this.#inbox.push({ control });
    }
    if (this.#inbox.length > 0) this.#wakeReader?.();
  }

  #sendNow(frame: OutgoingFrame, onFlushed?: () => void): void {
    const header = encodeHeader({
      type: frame.type,
      region: frame.region ?? 0,
      sequence: this.#sequence,
      length: frame.checked.length + (frame.pages?.length ?? 0),
      count: frame.count ?? 0,
      base: frame.base ?? 0,
      payloadChecksum: crc32(frame.checked),
    });
    this.#sequence = (this.#sequence + 1) % 2 ** 32;
    this.#write(frame.pages === undefined ? [header, frame.checked] : [header, frame.checked, frame.pages], onFlushed);
  }

  #sendHeartbeat(): void {
    this.#sendNow({ type: FrameType.control, checked: encodeControl({ kind: 'heartbeat' }) });
  }

  /** #inFlight rises here, by all that is handed to the socket, and falls when the kernel has taken it. */
  #write(pieces: readonly Buffer[], onFlushed?: () => void): void {
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    this.#lastOut = Date.now();
    this.#inFlight += bytes;
    this.#bytesOut.add(bytes);
    const flushed = (): void => {
      this.#inFlight -= bytes;
      onFlushed?.();
      this.#wakeWriters();
    };
    this.#writeOut(pieces, flushed);
  }

  #pushStalled(): void {
    try {
      for (let chunk = this.#stalled[0]; chunk !== undefined; chunk = this.#stalled[0]) {
        if (!this.#canTake) return;
        const { opening } = this.#decoder;
        const taken = this.#decoder.push(chunk);
        if (opening !== this.#decoder.opening) this.#wakeReader?.();
        this.#collect();
        if (taken === 0) return;
        if (taken < chunk.length) this.#stalled[0] = chunk.subarray(taken);
        else this.#stalled.shift();
      }
    } catch (error) {
      this.#stalled = [];
      this.fail(BallastError.from(error));
    }
  }

  #lost(cause?: Error): BallastError {
    const handshake = cause && explainHandshake(cause);
    const reason = cause === undefined ? 'it closed the connection' : (systemCode(cause) ?? cause.message);
    if (handshake !== undefined && this.bytesIn === 0)
      return new BallastError(ErrorCode.TLS, `the connection to ${this.peer} ended: ${handshake}`, { cause });
    // Once the peer was understood, TLS fails on nothing but bytes that are not as they were sent.
    if (handshake !== undefined) {
      return new BallastError(
        ErrorCode.CORRUPT_STREAM,
        `what came over TLS from or to ${this.peer} arrived damaged (${reason}); the connection cannot be trusted any further`,
        { cause },
      );
    }
    // What a TLS listener does with a peer that does not speak TLS.
    const silent = this.bytesIn === 0 ? ', without a word; if it uses TLS, so must this side' : '';
    return new BallastError(
      ErrorCode.CONNECTION_LOST,
      `the connection to ${this.peer} was lost before all was done (${reason}${silent})`,
      { cause },
    );
  }

  /** Two ticks in a row must find silence, so that a loop that was busy for long does not blame the peer for it. */
  #tick(): void {
    const now = Date.now();
    const isOpen = this.#failure === undefined && this.#socket.writable;
    if (isOpen) this.#threshold?.look(this.bytesIn);
    if (now - this.#lastOut >= this.#quietMs && this.#inFlight === 0 && isOpen) {
      this.#sendHeartbeat();
    }
    // While this side does not listen, because nobody calls `next`, it cannot tell whether the peer is silent.
    if (!this.wantsBytes) this.#alive();
    if (now - this.#lastIn < this.#timeoutMs) return;
    if (!this.#suspectedSilence) {
      this.#suspectedSilence = true;
      return;
    }
    this.fail(
      new BallastError(
        ErrorCode.TIMEOUT,
        `${this.peer} has been silent for ${Math.round((now - this.#lastIn) / 1000)} s; check the link and the other program, or allow more with --timeout`,
      ),
    );
    this.#socket.destroy();
  }
}

/**
 * A peer's refuse or abort as an error of ours: its code where we know it, its words marked as its own. That the command
 * line is wrong, which has an exit status of its own, nobody can say of another program's.
 */
function spokenBy(peer: string, { code, message }: { code: string; message: string }): BallastError {
  const ours = isErrorCode(code) && code !== ErrorCode.USAGE ? code : ErrorCode.PROTOCOL;
  return new BallastError(ours, `${peer} says: ${message}`);
}
