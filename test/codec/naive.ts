/**
 * The codec once more, as docs/protocol.md says it and as slowly as it likes: BigInt for every number, DataView for every
 * field, no buffer used twice. What the fast codec does is compared with this.
 */

/** CRC-32 of IEEE 802.3, bit by bit. */
export function naiveCrc32(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xedb88320n : crc >> 1n;
  }
  return Number(crc ^ 0xffffffffn);
}

export interface NaiveHeader {
  readonly type: number;
  readonly flags: number;
  readonly region: number;
  readonly sequence: number;
  readonly length: number;
  readonly count: number;
  readonly base: bigint;
  readonly payloadChecksum: number;
}

export function writeNaiveHeader(header: NaiveHeader): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.type);
  view.setUint8(1, header.flags);
  view.setUint16(2, header.region, true);
  view.setUint32(4, header.sequence, true);
  view.setUint32(8, header.length, true);
  view.setUint32(12, header.count, true);
  view.setBigUint64(16, header.base, true);
  view.setUint32(24, header.payloadChecksum, true);
  view.setUint32(28, naiveCrc32(bytes.slice(0, 28)), true);
  return bytes;
}

export function readNaiveHeader(bytes: Uint8Array): NaiveHeader {
  const view = viewOf(bytes);
  if (view.getUint32(28, true) !== naiveCrc32(bytes.slice(0, 28))) throw new Error('the header checksum is wrong');
  return {
    type: view.getUint8(0),
    flags: view.getUint8(1),
    region: view.getUint16(2, true),
    sequence: view.getUint32(4, true),
    length: view.getUint32(8, true),
    count: view.getUint32(12, true),
    base: view.getBigUint64(16, true),
    payloadChecksum: view.getUint32(24, true),
  };
}

/** A whole frame: header, what the payload checksum covers, and the rest of the payload. */
export function naiveFrame(
  fields: Partial<NaiveHeader> & { readonly type: number },
  checked: Uint8Array,
  unchecked: Uint8Array = new Uint8Array(0),
): Buffer {
  const header = writeNaiveHeader({
    flags: 0,
    region: 0,
    sequence: 0,
    count: 0,
    base: 0n,
    length: checked.length + unchecked.length,
    payloadChecksum: naiveCrc32(checked),
    ...fields,
  });
  return Buffer.concat([header, checked, unchecked]);
}

export interface NaiveLeaf {
  /** Index in the region. */
  readonly leaf: bigint;
  readonly mask: number;
  readonly sent: number;
  readonly stored: number;
  readonly digest: Uint8Array;
}

export function writeNaiveLeaf(base: bigint, record: NaiveLeaf): Uint8Array {
  const bytes = new Uint8Array(48);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Number(record.leaf - base), true);
  view.setUint16(4, record.mask, true);
  view.setUint16(6, record.sent, true);
  view.setUint32(8, record.stored, true);
  bytes.set(record.digest, 16);
  return bytes;
}

export function readNaiveLeaf(base: bigint, bytes: Uint8Array): NaiveLeaf {
  const view = viewOf(bytes);
  return {
    leaf: base + BigInt(view.getUint32(0, true)),
    mask: view.getUint16(4, true),
    sent: view.getUint16(6, true),
    stored: view.getUint32(8, true),
    digest: bytes.slice(16, 48),
  };
}

/** How many bits are set. */
export function naivePopCount(bits: number): number {
  return bits === 0 ? 0 : (bits % 2) + naivePopCount(Math.floor(bits / 2));
}

export interface NaiveRun {
  readonly start: bigint;
  readonly end: bigint;
}

/** LEB128 in its shortest form. */
export function writeNaiveVarint(value: bigint): number[] {
  const low = Number(value & 127n);
  const rest = value >> 7n;
  return rest === 0n ? [low] : [low | 128, ...writeNaiveVarint(rest)];
}

export function writeNaiveRanges(base: bigint, runs: readonly NaiveRun[]): Uint8Array {
  const bytes: number[] = [];
  let position = base;
  for (const { start, end } of runs) {
    bytes.push(...writeNaiveVarint(start - position), ...writeNaiveVarint(end - start));
    position = end;
  }
  return Uint8Array.from(bytes);
}

/** Reads what is well formed; it refuses nothing but bytes that end too early. */
export function readNaiveRanges(base: bigint, count: number, bytes: Uint8Array): NaiveRun[] {
  const rest = [...bytes];
  const varint = (): bigint => {
    const byte = rest.shift();
    if (byte === undefined) throw new Error('the bytes end inside a number');
    return byte < 128 ? BigInt(byte) : BigInt(byte & 127) + 128n * varint();
  };
  const runs: NaiveRun[] = [];
  let position = base;
  for (let run = 0; run < count; run++) {
    const start = position + varint();
    const end = start + varint();
    runs.push({ start, end });
    position = end;
  }
  return runs;
}

/** Nine bytes for each page. */
export function writeNaiveWhiteouts(pages: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(9 * pages.length);
  const view = new DataView(bytes.buffer);
  for (const [index, page] of pages.entries()) view.setBigUint64(9 * index, page * 4096n, true);
  return bytes;
}

/** The pages, in the order of the bytes. */
export function readNaiveWhiteouts(bytes: Uint8Array): bigint[] {
  const view = viewOf(bytes);
  const pages: bigint[] = [];
  for (let at = 0; at < bytes.length; at += 9) pages.push(view.getBigUint64(at, true) / 4096n);
  return pages;
}

export interface NaiveHeldLeaf {
  readonly leaf: bigint;
  readonly mask: number;
  readonly digest: Uint8Array;
  readonly hints: Uint8Array;
}

export function writeNaiveHeldLeaf(base: bigint, held: NaiveHeldLeaf): Uint8Array {
  const bytes = new Uint8Array(40 + held.hints.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Number(held.leaf - base), true);
  view.setUint16(4, held.mask, true);
  bytes.set(held.digest, 8);
  bytes.set(held.hints, 40);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
