import { BallastError, ErrorCode } from '../errors.js';
import { DIGEST_SIZE } from '../integrity/digest.js';
import { HINT_SIZE } from '../integrity/page-hint.js';
import { LEAF_PAGES, PAGE_SIZE, leafCount } from '../memory/page.js';
import { popCount } from '../memory/page-coverage.js';
import { FrameType, MAX_PAYLOAD } from './constants.js';
import type { FrameHeader } from './header.js';

/**
 * What the destination holds of one leaf, as it tells the sender:
 *
 *      0        4      6      8                         40
 *      +--------+------+------+-------------------------+----------------------+
 *      | leaf   | mask | zero |         digest          | hint of each page in |
 *      | u32    | u16  | u16  |        32 bytes         | mask, 8 bytes each   |
 *      +--------+------+------+-------------------------+----------------------+
 *
 * leaf: index relative to the header's `base`. Hints say which pages of a differing leaf to send, and are never trusted:
 * the digest of the whole leaf decides whether it arrived.
 */
export interface HeldLeaf {
  /** Index in the region. */
  readonly leaf: number;
  /** Pages that are not zero. */
  readonly mask: number;
  readonly digest: Buffer;
  /** XXH3-64 of each page in mask, 8 bytes each. */
  readonly hints: Buffer;
}

const RECORD_SIZE = 8 + DIGEST_SIZE;
const CAPACITY = MAX_PAYLOAD[FrameType.holdings];
const LARGEST_RECORD = RECORD_SIZE + LEAF_PAGES * HINT_SIZE;

/** Fills one holdings frame. */
export class HoldingsEncoder {
  #bytes = Buffer.allocUnsafe(CAPACITY);
  #length = 0;
  #count = 0;
  #base = 0;

  get count(): number {
    return this.#count;
  }

  get base(): number {
    return this.#base;
  }

  /** Whether another leaf surely fits. */
  get hasRoom(): boolean {
    return this.#length + LARGEST_RECORD <= CAPACITY;
  }

  /** Adds a leaf behind those added before. */
  add({ leaf, mask, digest, hints }: HeldLeaf): void {
    if (this.#count === 0) this.#base = leaf;
    this.#bytes.writeUInt32LE(leaf - this.#base, this.#length);
    this.#bytes.writeUInt16LE(mask, this.#length + 4);
    this.#bytes.writeUInt16LE(0, this.#length + 6);
    this.#bytes.set(digest, this.#length + 8);
    this.#bytes.set(hints, this.#length + RECORD_SIZE);
    this.#length += RECORD_SIZE + hints.length;
    this.#count++;
  }

  /** The payload so far, copied; the encoder is empty afterwards. */
  take(): Buffer {
    const payload = Buffer.from(this.#bytes.subarray(0, this.#length));
    this.#length = 0;
    this.#count = 0;
    return payload;
  }
}

function malformed(what: string): BallastError {
  return new BallastError(ErrorCode.PROTOCOL, `the peer sent holdings that ${what}`);
}

/**
 * The leaves of a holdings payload, checked: ascending, inside the region, and exactly as long as the payload. Digests
 * and hints are copies.
 * @param regionBytes size of the region in bytes
 * @throws BallastError PROTOCOL
 */
export function decodeHoldings({ count, base }: FrameHeader, payload: Buffer, regionBytes: number): HeldLeaf[] {
  const leaves = leafCount(regionBytes);
  const pages = regionBytes / PAGE_SIZE;
  if (base > leaves) throw malformed('begin beyond the region');
  const held: HeldLeaf[] = [];
  let at = 0;
  let previous = -1;
  for (let index = 0; index < count; index++) {
    if (at + RECORD_SIZE > payload.length) throw malformed('end inside a leaf');
    const leaf = base + payload.readUInt32LE(at);
    const mask = payload.readUInt16LE(at + 4);
    const hintBytes = popCount(mask) * HINT_SIZE;
    if (leaf <= previous) throw malformed('do not ascend');
    if (mask === 0 || leaf * LEAF_PAGES + 31 - Math.clz32(mask) >= pages)
      throw malformed('have pages beyond the region, or none');
    if (payload.readUInt16LE(at + 6) !== 0) throw malformed('set a field that must be zero');
    const hintsAt = at + RECORD_SIZE;
    if (hintsAt + hintBytes > payload.length) throw malformed('end inside the hints of a leaf');
    held.push({
      leaf,
      mask,
      digest: Buffer.from(payload.subarray(at + 8, hintsAt)),
      hints: Buffer.from(payload.subarray(hintsAt, hintsAt + hintBytes)),
    });
    at = hintsAt + hintBytes;
    previous = leaf;
  }
  if (at !== payload.length) throw malformed('have bytes after the last leaf');
  return held;
}
