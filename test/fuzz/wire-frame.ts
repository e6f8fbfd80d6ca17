import { crc32 } from 'node:zlib';
import { LEAF_RECORD_SIZE } from '@ballast/shared/protocol';
import type { Random } from './random.js';

const HEADER_SIZE = 32;
/** Frame types by number: what is unknown has to be sayable, too. */
export const Type = {
  control: 1,
  leaves: 2,
  whiteouts: 3,
  freeRanges: 4,
  zeroRanges: 5,
  holdings: 6,
  state: 7,
  filler: 8,
} as const;

/** A frame before it becomes bytes, with room for lies in every field. */
export interface WireFrame {
  readonly type: number;
  readonly flags: number;
  readonly region: number;
  readonly count: number;
  readonly base: number;
  readonly payload: Buffer;
  /** What is added to the right value of a field that is derived. */
  readonly sequenceLie: number;
  readonly lengthLie: number;
  readonly payloadChecksumLie: number;
  readonly headerChecksumLie: number;
}

export function wireFrame(
  type: number,
  payload: Buffer,
  { region = 0, count = 0, base = 0 }: { region?: number; count?: number; base?: number } = {},
): WireFrame {
  const noLies = { sequenceLie: 0, lengthLie: 0, payloadChecksumLie: 0, headerChecksumLie: 0 };
  return { type, flags: 0, region, count, base, payload, ...noLies };
}

export function controlFrame(message: unknown): WireFrame {
  return wireFrame(Type.control, pack(message));
}

/** The bytes of a frame: right checksums for what it says, unless it lies about them. */
export function encodeFrame(frame: WireFrame, sequence: number): Buffer {
  const { payload } = frame;
  const checked = checkedBytes(frame);
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt8(frame.type & 255, 0);
  header.writeUInt8(frame.flags & 255, 1);
  header.writeUInt16LE(frame.region & 0xffff, 2);
  header.writeUInt32LE((sequence + frame.sequenceLie) >>> 0, 4);
  header.writeUInt32LE((payload.length + frame.lengthLie) >>> 0, 8);
  header.writeUInt32LE(frame.count >>> 0, 12);
  header.writeBigUInt64LE(BigInt.asUintN(64, BigInt(frame.base)), 16);
  header.writeUInt32LE((crc32(payload.subarray(0, checked)) + frame.payloadChecksumLie) >>> 0, 24);
  header.writeUInt32LE((crc32(header.subarray(0, 28)) + frame.headerChecksumLie) >>> 0, 28);
  return Buffer.concat([header, payload]);
}

/** How much of its payload a frame's checksum covers. */
function checkedBytes({ type, count, payload }: WireFrame): number {
  if (type === Type.filler) return 0;
  return type === Type.leaves ? Math.min(count * LEAF_RECORD_SIZE, payload.length) : payload.length;
}

/** A frame that is a little wrong. Checksums stay right most of the time, or nothing behind them would be tried. */
export function mutateFrame(random: Random, frame: WireFrame): WireFrame {
  switch (random.below(12)) {
    case 0:
      return { ...frame, region: random.pick([0, 1, 2, 63, 64, 65535]) };
    case 1:
      return { ...frame, count: random.pick([frame.count + 1, frame.count - 1, 0, random.nasty()]) };
    case 2:
      return { ...frame, base: random.pick([frame.base + 1, Math.max(0, frame.base - 1), 0, random.nasty(), 2 ** 53]) };
    case 3:
      return { ...frame, type: random.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255]) };
    case 4:
      return { ...frame, flags: random.oneIn(2) ? 1 : random.below(256) };
    case 5:
      return { ...frame, lengthLie: random.pick([1, -1, 48, -48, 4096, -4096, random.nasty()]) };
    case 6:
      return random.pick([
        { ...frame, sequenceLie: random.pick([1, -1, random.nasty()]) },
        { ...frame, payloadChecksumLie: 1 },
        { ...frame, headerChecksumLie: 1 },
      ]);
    default:
      return { ...frame, payload: mutateBytes(random, frame.payload) };
  }
}

/** Bytes with a field overwritten, cut, lengthened, or with a part repeated. */
export function mutateBytes(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  const at = random.below(copy.length + 1);
  switch (random.below(8)) {
    case 0:
      return copy.subarray(0, at);
    case 1:
      return Buffer.concat([copy, random.bytes(random.between(1, 64))]);
    case 2:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(random.below(at + 1))]);
    case 3:
      return Buffer.concat([copy.subarray(0, at), random.bytes(random.between(1, 8)), copy.subarray(at)]);
    case 4:
      if (copy.length >= 4) copy.writeUInt32LE(random.nasty() >>> 0, random.below(copy.length - 3));
      return copy;
    case 5:
      if (copy.length >= 2) copy.writeUInt16LE(random.below(65536), random.below(Math.min(copy.length - 1, 48)));
      return copy;
    default:
      if (at < copy.length) copy[at] = random.oneIn(2) ? (copy[at] ?? 0) ^ (1 << random.below(8)) : random.below(256);
      return copy;
  }
}

/** Any value as MessagePack, with none of the checks of the real encoder. */
export function pack(value: unknown): Buffer {
  const pieces: Buffer[] = [];
  packInto(pieces, value);
  return Buffer.concat(pieces);
}

function packInto(pieces: Buffer[], value: unknown): void {
  if (value === null || value === undefined) pieces.push(Buffer.from([0xc0]));
  else if (typeof value === 'boolean') pieces.push(Buffer.from([value ? 0xc3 : 0xc2]));
  else if (typeof value === 'number') pieces.push(packNumber(value));
  else if (typeof value === 'string') {
    const bytes = Buffer.from(value, 'utf8');
    pieces.push(sized(0xdb, bytes.length), bytes);
  } else if (value instanceof Uint8Array) pieces.push(sized(0xc6, value.length), Buffer.from(value));
  else if (Array.isArray(value)) {
    pieces.push(sized(0xdd, value.length));
    for (const item of value) packInto(pieces, item);
  } else {
    const entries = Object.entries(value);
    pieces.push(sized(0xdf, entries.length));
    for (const [key, item] of entries) {
      packInto(pieces, key);
      packInto(pieces, item);
    }
  }
}

function packNumber(value: number): Buffer {
  if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.from([value]);
  const bytes = Buffer.alloc(9);
  bytes[0] = 0xcb;
  bytes.writeDoubleBE(value, 1);
  return bytes;
}

function sized(token: number, length: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes[0] = token;
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

/** A message with a field changed, added or left out; now and then its bytes are damaged instead. */
export function mutateMessage(random: Random, message: Readonly<Record<string, unknown>>): WireFrame {
  const keys = Object.keys(message);
  const key = random.pick(keys);
  switch (random.below(6)) {
    case 0:
      return controlFrame(Object.fromEntries(Object.entries(message).filter(([name]) => name !== key)));
    case 1:
      return controlFrame({ ...message, [random.pick(['extra', '__proto__', 'constructor', 'kind '])]: 1 });
    case 2: {
      const frame = controlFrame(message);
      return { ...frame, payload: mutateBytes(random, frame.payload) };
    }
    default:
      return controlFrame({ ...message, [key]: mutateValue(random, message[key]) });
  }
}

function mutateValue(random: Random, value: unknown): unknown {
  if (Array.isArray(value) && random.oneIn(2)) {
    const items: unknown[] = [...(value as unknown[])];
    switch (random.below(4)) {
      case 0:
        return [];
      case 1:
        return [...items, ...items];
      case 2:
        return items.slice(1);
      default:
        items[random.below(items.length)] = mutateValue(random, items[0]);
        return items;
    }
  }
  return random.pick<() => unknown>([
    () => random.nasty(),
    () => -1,
    () => 0.5,
    () => NaN,
    () => Infinity,
    () => 4096 * random.between(0, 100),
    () => 2 ** 60,
    () => '',
    () => 'x'.repeat(random.pick([1, 1024, 1025, 60_000])),
    () => random.bytes(random.pick([0, 16, 31, 32, 33])),
    () => null,
    () => true,
    () => false,
    () => [],
    () => ({}),
    () => [[0, 0]],
    () => [[random.below(3), random.nasty()]],
    () => Array.from({ length: random.pick([2, 65, 1025]) }, () => [0, random.below(4)]),
    () => Array.from({ length: random.pick([1, 64, 65]) }, () => 4096 * random.between(1, 20)),
    () => value,
  ])();
}
