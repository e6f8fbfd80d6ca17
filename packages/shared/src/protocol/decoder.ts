import { crc32 } from 'node:zlib';
import { BallastError, ErrorCode } from '../errors.js';
import { FrameType, HEADER_SIZE, MAX_PAYLOAD, PREAMBLE, channelOf, mayBeChannel } from './constants.js';
import { CACHE_LINE, alignedBuffer } from '../memory/aligned.js';
import { decodeHeader, type FrameHeader } from './header.js';
import { leafTableSize } from './leaf-records.js';

/** A frame as it came in. `payload` is a view of the decoder's memory, valid until the decoder is asked to reuse it. */
export interface Frame {
  readonly header: FrameHeader;
  readonly payload: Buffer;
}

/** What a stream began with: frames follow, or it wants to become a channel, and is to be handed over as it is. */
export type Opening = { readonly kind: 'frames' } | { readonly kind: 'channel'; readonly index: number };

/** Large enough for any payload; two of them let one frame be read while the one before is being worked on. */
const PAYLOAD_CAPACITY = Math.max(...Object.values(MAX_PAYLOAD));
const SPARE_BUFFERS = 2;

const Stage = { preamble: 0, header: 1, payload: 2, channel: 3 } as const;
type Stage = (typeof Stage)[keyof typeof Stage];

/**
 * Turns a stream of bytes into frames. It knows no socket: it says where the next bytes belong (`target`), is told how
 * many came (`advance`), and so lets the kernel write page bytes straight to where they are used. Whoever has bytes
 * already uses `push`.
 *
 * Bounded: a length is checked against its type's limit before a byte of the payload is taken, and payload memory is
 * two fixed buffers, allocated at the first frame that needs them.
 */
export class FrameDecoder {
  #stage: Stage = Stage.preamble;
  #opening: Opening | undefined;
  #head = Buffer.alloc(HEADER_SIZE);
  #filled = 0;
  #sequence = 0;
  #header: FrameHeader | undefined;
  #payload: Buffer = Buffer.alloc(0);
  /** All payload memory, and what of it is free. */
  #memory: Buffer[] = [];
  #spare: Buffer[] = [];
  #ready: Frame[] = [];
  /**
   * Whether frames may come that are no control messages: while they may not, their header is refused, so that no payload
   * memory is made for a peer that has not said what it wants.
   */
  admitsBulk = true;

  /**
   * Whether it can take bytes now; false between two frames while all payload memory is out with frames that nobody
   * has recycled. So it never stops inside a frame, and `target` is a place that stays right while it waits.
   */
  get canTake(): boolean {
    if (this.#stage === Stage.channel) return false;
    return (
      this.#stage !== Stage.header || this.#filled > 0 || this.#spare.length > 0 || this.#memory.length < SPARE_BUFFERS
    );
  }

  /** What the first bytes said, once they are there. */
  get opening(): Opening | undefined {
    return this.#opening;
  }

  /** Bytes that the payload of the frame that has begun still lacks. */
  get missing(): number {
    return this.#header === undefined ? 0 : this.#header.length - this.#filled;
  }

  /** Where the next bytes belong: never empty, unless `advance` has thrown. */
  target(): Buffer {
    switch (this.#stage) {
      case Stage.preamble:
      case Stage.channel:
        return this.#head.subarray(this.#filled, PREAMBLE.length);
      case Stage.header:
        return this.#head.subarray(this.#filled, HEADER_SIZE);
      case Stage.payload:
        return this.#payload.subarray(this.#filled);
    }
  }

  /**
   * Says that `count` bytes were written at the start of what `target` returned.
   * @throws BallastError VERSION or PROTOCOL when they cannot be part of a stream
   */
  advance(count: number): void {
    this.#filled += count;
    switch (this.#stage) {
      case Stage.preamble:
        this.#opening = this.#checkPreamble();
        if (this.#opening?.kind === 'channel') this.#stage = Stage.channel;
        if (this.#opening?.kind === 'frames') this.#enter(Stage.header);
        return;
      case Stage.channel:
        return;
      case Stage.header:
        if (this.#filled < HEADER_SIZE) return;
        this.#header = decodeHeader(this.#head, this.#sequence);
        this.#sequence = (this.#sequence + 1) % 2 ** 32;
        if (this.#header.type !== FrameType.control && !this.admitsBulk) {
          throw new BallastError(
            ErrorCode.PROTOCOL,
            `the peer sent a frame of type ${this.#header.type} before it had said what it wants`,
          );
        }
        if (this.#header.length === 0) this.#finish(this.#header, Buffer.alloc(0));
        else this.#beginPayload(this.#header);
        return;
      case Stage.payload:
        if (this.#header !== undefined && this.#filled === this.#header.length)
          this.#finish(this.#header, this.#payload);
        return;
    }
  }

  /**
   * Copies bytes in, for streams that bring their own buffers. Returns how many were taken: fewer than given only
   * when a frame must be recycled first, or, as long as only control messages may come, when one is complete: what it
   * says decides about the next.
   */
  push(chunk: Buffer): number {
    let taken = 0;
    while (taken < chunk.length && this.canTake && (this.admitsBulk || this.#ready.length === 0)) {
      const target = this.target();
      const count = Math.min(target.length, chunk.length - taken);
      chunk.copy(target, 0, taken, taken + count);
      taken += count;
      this.advance(count);
    }
    return taken;
  }

  /** The next complete frame, if there is one. */
  shift(): Frame | undefined {
    return this.#ready.shift();
  }

  /** Lets go of all memory: nothing will be decoded any more. */
  abandon(): void {
    this.#memory = [];
    this.#spare = [];
    this.#ready = [];
    this.#payload = Buffer.alloc(0);
  }

  /** Gives a frame's memory back. Its payload must not be looked at afterwards. */
  recycle(frame: Frame): void {
    const memory = this.#memory.find(({ buffer }) => buffer === frame.payload.buffer);
    if (memory !== undefined) this.#spare.push(memory);
  }

  #enter(stage: Stage): void {
    this.#stage = stage;
    this.#filled = 0;
  }

  #checkPreamble(): Opening | undefined {
    const bytes = this.#head.subarray(0, this.#filled);
    const channel = channelOf(bytes);
    if (channel !== undefined) return { kind: 'channel', index: channel };
    const letters = PREAMBLE.length - 1;
    const same = Math.min(this.#filled, letters);
    if (this.#head.compare(PREAMBLE, 0, same, 0, same) !== 0 && !mayBeChannel(bytes)) {
      throw new BallastError(
        looksLikeTls(bytes) ? ErrorCode.TLS : ErrorCode.VERSION,
        `the peer does not speak Ballast's protocol: ${describeStranger(bytes)}`,
      );
    }
    if (this.#filled < PREAMBLE.length) return undefined;
    if (this.#head[letters] !== PREAMBLE[letters]) {
      throw new BallastError(
        ErrorCode.VERSION,
        `the peer speaks version ${this.#head[letters]} of the protocol and this side version ${PREAMBLE[letters]}; install the same version on both hosts`,
      );
    }
    return { kind: 'frames' };
  }

  #beginPayload(header: FrameHeader): void {
    this.#enter(Stage.payload);
    if (header.type === FrameType.control) {
      this.#payload = Buffer.alloc(header.length);
      return;
    }
    let memory = this.#spare.pop();
    if (memory === undefined) {
      memory = alignedBuffer(PAYLOAD_CAPACITY + CACHE_LINE);
      this.#memory.push(memory);
    }
    // Pages, which follow their table, begin on a cache line.
    const table = header.type === FrameType.leaves ? leafTableSize(header) : 0;
    const start = (CACHE_LINE - (table % CACHE_LINE)) % CACHE_LINE;
    this.#payload = memory.subarray(start, start + header.length);
  }

  #finish(header: FrameHeader, payload: Buffer): void {
    if (crc32(checkedPart(header, payload)) !== header.payloadChecksum) {
      throw new BallastError(
        ErrorCode.CORRUPT_STREAM,
        `frame ${header.sequence} arrived damaged (the checksum of its contents does not match); the connection cannot be trusted any further`,
      );
    }
    this.#ready.push({ header, payload });
    this.#header = undefined;
    this.#payload = Buffer.alloc(0);
    this.#enter(Stage.header);
  }
}

/** What of a payload its checksum covers. */
function checkedPart(header: FrameHeader, payload: Buffer): Buffer {
  if (header.type === FrameType.leaves) return payload.subarray(0, leafTableSize(header));
  return header.type === FrameType.filler ? payload.subarray(0, 0) : payload;
}

/** Whether bytes begin with a handshake or an alert of TLS. */
function looksLikeTls(bytes: Buffer): boolean {
  return bytes[0] === 0x16 || bytes[0] === 0x15;
}

/** Says what a stranger seems to speak, from its first bytes. */
function describeStranger(bytes: Buffer): string {
  const text = bytes.toString('latin1');
  if (/^(GET|POST|HEAD|PUT|OPTIO|CONNECT|DELETE) ?/.test(text) || text.startsWith('HTTP/')) return 'it looks like HTTP';
  if (looksLikeTls(bytes)) return 'it looks like TLS; give both sides the same TLS options';
  if (text.startsWith('SSH-')) return 'it looks like SSH';
  if (text.startsWith('NBDMAGIC')) return 'it looks like NBD';
  return `it began with ${bytes.toString('hex')}`;
}
