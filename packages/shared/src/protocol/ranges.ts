import { BallastError, ErrorCode } from '../errors.js';
import { MAX_PAYLOAD, FrameType } from './constants.js';

/**
 * Runs of pages as two LEB128 numbers each: the gap since the end of the run before (for the first: since the frame's
 * `base`), and the length, which is at least 1. A run that touches the one before has gap 0 only at the start of a
 * frame, so the shortest form is the only form.
 */
export interface PageRun {
  /** First page. */
  readonly start: number;
  /** Page after the last. */
  readonly end: number;
}

/** Bytes that a number below 2^53 takes at most. */
const MAX_VARINT = 8;
const MAX_RUN = 2 * MAX_VARINT;
const CAPACITY = MAX_PAYLOAD[FrameType.freeRanges];

/** Fills one frame's payload with runs. */
export class RangeEncoder {
  #bytes = Buffer.allocUnsafe(CAPACITY);
  #length = 0;
  #count = 0;
  #base = 0;
  #position = 0;

  get count(): number {
    return this.#count;
  }

  /** Page index from which the first gap counts. */
  get base(): number {
    return this.#base;
  }

  /** Whether another run surely fits. */
  get hasRoom(): boolean {
    return this.#length + MAX_RUN <= CAPACITY;
  }

  /** Adds the pages [start, end), which must lie behind all added since the last `take`. */
  add(start: number, end: number): void {
    if (this.#count === 0) {
      this.#base = start;
      this.#position = start;
    }
    this.#varint(start - this.#position);
    this.#varint(end - start);
    this.#position = end;
    this.#count++;
  }

  /** The payload so far, copied; the encoder is empty afterwards. */
  take(): Buffer {
    const payload = Buffer.from(this.#bytes.subarray(0, this.#length));
    this.#length = 0;
    this.#count = 0;
    return payload;
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }
}

function malformed(what: string): BallastError {
  return new BallastError(ErrorCode.PROTOCOL, `the peer sent page ranges that ${what}`);
}

/**
 * The runs of a payload, one by one.
 * @param count runs that the header announced
 * @param base page that the first gap counts from
 * @param pages of the region: no run may end beyond
 * @throws BallastError PROTOCOL when the payload is not exactly `count` runs inside the region
 */
export function* decodeRanges(payload: Buffer, count: number, base: number, pages: number): Generator<PageRun> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    let unit = 1;
    for (let i = 0; i < MAX_VARINT; i++) {
      const byte = payload[at++];
      if (byte === undefined) throw malformed('end in the middle of a number');
      value += (byte & 127) * unit;
      if (byte < 128) {
        if (byte === 0 && i > 0) throw malformed('write a number longer than needed');
        if (!Number.isSafeInteger(value)) throw malformed('hold a number beyond 2^53');
        return value;
      }
      unit *= 128;
    }
    throw malformed('hold a number of more than 8 bytes');
  };

  let position = base;
  for (let run = 0; run < count; run++) {
    const gap = varint();
    const length = varint();
    if (gap === 0 && run > 0) throw malformed('split one run into two');
    if (length === 0) throw malformed('hold an empty run');
    const start = position + gap;
    const end = start + length;
    if (end > pages) throw malformed(`end at page ${end}, beyond the region's ${pages} pages`);
    yield { start, end };
    position = end;
  }
  if (at !== payload.length) throw malformed('have bytes after the last run');
}
