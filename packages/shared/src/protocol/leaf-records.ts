import { Compression } from '../compression/codec.js';
import { BallastError, ErrorCode } from '../errors.js';
import { DIGEST_SIZE } from '../integrity/digest.js';
import { LEAF_PAGES, PAGE_SIZE, leafCount } from '../memory/page.js';
import { popCount } from '../memory/page-coverage.js';
import { LEAF_RECORD_SIZE, MAX_BATCH_BYTES, MAX_BATCH_LEAVES } from './constants.js';
import type { FrameHeader } from './header.js';

/**
 * A leaves frame is a table of records and then the bytes of their pages, in the order of the table:
 *
 *      0        4      6      8        12       16                        48
 *      +--------+------+------+--------+--------+-------------------------+
 *      | leaf   | mask | sent | stored | codec  |         digest          |
 *      | u32    | u16  | u16  | u32    | u32    |        32 bytes         |
 *      +--------+------+------+--------+--------+-------------------------+
 *
 * leaf: index relative to the header's `base`. mask: pages of the leaf that are not zero. sent: those of them whose bytes
 * follow (a subset; the receiver holds the rest already). stored: bytes that follow for this leaf: 4096 for
 * each page sent, or less where they are compressed. codec: with what, counted in what both sides agreed on. digest: of
 * all the pages in mask.
 */
export interface LeafRecord {
  /** Index in the region. */
  readonly leaf: number;
  readonly mask: number;
  readonly sent: number;
  /** Bytes of this leaf in the frame: of its pages, or of what they were compressed to. */
  readonly stored: number;
  /** Which of the agreed compressions they were compressed with; 0 where they were not. */
  readonly codec: number;
  /** Where they begin, from the start of the payload. */
  readonly at: number;
  /** A view of the payload. */
  readonly digest: Buffer;
}

/** The table of a leaves frame in the making. By a DataView: Buffer's methods are JavaScript, which V8 compiles first. */
export class LeafTable {
  /** Bytes of all records that there is room for. */
  readonly bytes: Buffer;
  readonly #view: DataView;

  constructor(capacity: number) {
    this.bytes = Buffer.alloc(capacity * LEAF_RECORD_SIZE);
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length);
  }

  /** Writes record `index`. `leaf` is relative to the frame's base, `codec` counts the agreed compressions. */
  write(index: number, leaf: number, mask: number, sent: number, stored: number, digest: Uint8Array, codec = 0): void {
    const at = index * LEAF_RECORD_SIZE;
    this.#view.setUint32(at, leaf, true);
    this.#view.setUint16(at + 4, mask, true);
    this.#view.setUint16(at + 6, sent, true);
    this.#view.setUint32(at + 8, stored, true);
    this.#view.setUint32(at + 12, codec, true);
    this.bytes.set(digest, at + 16);
  }
}

function malformed(what: string): BallastError {
  return new BallastError(ErrorCode.PROTOCOL, `the peer sent leaves that ${what}`);
}

/** Bytes of the table at the start of a leaves payload: the part that the payload checksum covers. */
export function leafTableSize(header: FrameHeader): number {
  return Math.min(header.count * LEAF_RECORD_SIZE, header.length);
}

/**
 * The records of a leaves payload, checked: ascending leaves inside the region, masks that fit, lengths that add up to
 * exactly the payload.
 * @param regionBytes size of the region in bytes
 * @param compressions what both sides agreed on: what `hello` says, and then what `welcome` takes besides
 * @throws BallastError PROTOCOL
 */
export function decodeLeafRecords(
  header: FrameHeader,
  payload: Buffer,
  regionBytes: number,
  compressions: readonly Compression[] = [Compression.none],
): LeafRecord[] {
  const { count, base } = header;
  if (count === 0 || count > MAX_BATCH_LEAVES) throw malformed(`number ${count}; 1 to ${MAX_BATCH_LEAVES} are allowed`);
  let at = count * LEAF_RECORD_SIZE;
  if (at > payload.length) throw malformed('end inside their table');
  const leaves = leafCount(regionBytes);
  const pages = regionBytes / PAGE_SIZE;
  const records: LeafRecord[] = [];
  const table = new DataView(payload.buffer, payload.byteOffset, at);
  let previous = -1;
  let pageBytes = 0;
  for (let index = 0; index < count; index++) {
    const record = index * LEAF_RECORD_SIZE;
    const leaf = base + table.getUint32(record, true);
    const mask = table.getUint16(record + 4, true);
    const sent = table.getUint16(record + 6, true);
    const stored = table.getUint32(record + 8, true);
    if (leaf <= previous) throw malformed('do not ascend');
    if (leaf >= leaves) throw malformed(`lie beyond the region: leaf ${leaf} of ${leaves}`);
    if (mask === 0) throw malformed(`hold no page: leaf ${leaf}`);
    if (leaf * LEAF_PAGES + 31 - Math.clz32(mask) >= pages)
      throw malformed(`have pages beyond the region: leaf ${leaf}`);
    if ((sent & ~mask) !== 0) throw malformed(`carry pages outside their mask: leaf ${leaf}`);
    const codec = table.getUint32(record + 12, true);
    const leafBytes = popCount(sent) * PAGE_SIZE;
    if (stored === leafBytes) {
      if (codec !== 0) throw malformed(`name a compression of pages that are not compressed: leaf ${leaf}`);
    } else {
      const compression = compressions[codec];
      if (compression === undefined) throw malformed(`name a compression that was not agreed on: leaf ${leaf}`);
      if (compression === Compression.none || stored === 0 || stored > leafBytes)
        throw malformed(`carry ${stored} bytes for ${popCount(sent)} pages: leaf ${leaf}`);
    }
    if (at + stored > payload.length) throw malformed('end inside their pages');
    records.push({
      leaf,
      mask,
      sent,
      stored,
      codec,
      at,
      digest: payload.subarray(record + 16, record + 16 + DIGEST_SIZE),
    });
    at += stored;
    pageBytes += leafBytes;
    previous = leaf;
  }
  if (at !== payload.length) throw malformed('have bytes after the last page');
  if (pageBytes > MAX_BATCH_BYTES)
    throw malformed(`carry ${pageBytes} bytes of pages; at most ${MAX_BATCH_BYTES} are allowed`);
  return records;
}
