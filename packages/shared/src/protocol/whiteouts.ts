import { PAGE_SIZE } from '../memory/page.js';
import { BallastError, ErrorCode } from '../errors.js';
import { MAX_WHITEOUTS, WHITEOUT_SIZE } from './constants.js';
import type { PageRun } from './ranges.js';

/**
 * A whiteout says that one page reads as zeros, in 9 bytes as QEMU's migration stream does: the page's offset in its
 * region (u64, little-endian), then the byte that fills it, which must be 0.
 */
export class WhiteoutEncoder {
  #bytes = Buffer.alloc(MAX_WHITEOUTS * WHITEOUT_SIZE);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count === MAX_WHITEOUTS;
  }

  /** Adds whiteouts for the pages from `start` (inclusive) as far as there is room, and returns the page after the last. */
  add(start: number, end: number): number {
    const stop = Math.min(end, start + MAX_WHITEOUTS - this.#count);
    let at = this.#count * WHITEOUT_SIZE;
    for (let page = start; page < stop; page++) {
      const offset = page * PAGE_SIZE;
      this.#bytes.writeUInt32LE(offset % 2 ** 32, at);
      this.#bytes.writeUInt32LE(Math.floor(offset / 2 ** 32), at + 4);
      at += WHITEOUT_SIZE;
    }
    this.#count += stop - start;
    return stop;
  }

  /** The payload so far, copied; the encoder is empty afterwards. */
  take(): Buffer {
    const payload = Buffer.from(this.#bytes.subarray(0, this.#count * WHITEOUT_SIZE));
    this.#count = 0;
    return payload;
  }
}

function malformed(what: string): BallastError {
  return new BallastError(ErrorCode.PROTOCOL, `the peer sent a whiteout ${what}`);
}

/**
 * The pages of a whiteouts payload, neighbours joined to runs.
 * @param count whiteouts that the header announced
 * @param pages of the region: none may lie beyond
 * @throws BallastError PROTOCOL when the payload is not exactly `count` whiteouts of pages inside the region
 */
export function* decodeWhiteouts(payload: Buffer, count: number, pages: number): Generator<PageRun> {
  if (count === 0 || payload.length !== count * WHITEOUT_SIZE)
    throw malformed(`list of ${payload.length} bytes for ${count} pages`);
  let start = -1;
  let end = -1;
  for (let at = 0; at < payload.length; at += WHITEOUT_SIZE) {
    const offset = payload.readUInt32LE(at) + payload.readUInt32LE(at + 4) * 2 ** 32;
    const page = offset / PAGE_SIZE;
    if (!Number.isInteger(page)) throw malformed(`at ${offset}, which is not the start of a page`);
    if (page >= pages) throw malformed(`of page ${page}, beyond the region's ${pages} pages`);
    if (payload[at + 8] !== 0) throw malformed(`that fills with ${payload[at + 8]}; only 0 is known`);
    if (page !== end) {
      if (end > start) yield { start, end };
      start = page;
    }
    end = page + 1;
  }
  if (end > start) yield { start, end };
}
