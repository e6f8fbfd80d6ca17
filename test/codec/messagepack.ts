/** Bytes that are put into MessagePack as they are, whether or not they are a value. */
export class Raw {
  readonly bytes: Buffer;

  constructor(...parts: readonly (Uint8Array | number)[]) {
    this.bytes = Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : part)));
  }
}

export type Packable =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Raw
  | readonly Packable[]
  | { readonly [key: string]: Packable };

/**
 * MessagePack from its specification, with the widest form of everything: another encoder than ours must be understood,
 * and a test must be able to write what no encoder would.
 */
export function pack(value: Packable): Buffer {
  if (value === null) return Buffer.of(0xc0);
  if (typeof value === 'boolean') return Buffer.of(value ? 0xc3 : 0xc2);
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(9, 0xcb);
    bytes.writeDoubleBE(value, 1);
    return bytes;
  }
  if (typeof value === 'bigint') {
    const bytes = Buffer.alloc(9, value < 0n ? 0xd3 : 0xcf);
    if (value < 0n) bytes.writeBigInt64BE(value, 1);
    else bytes.writeBigUInt64BE(value, 1);
    return bytes;
  }
  if (typeof value === 'string') return sized(0xdb, Buffer.byteLength(value), Buffer.from(value));
  if (value instanceof Raw) return value.bytes;
  if (value instanceof Uint8Array) return sized(0xc6, value.length, value);
  if (isList(value)) return sized(0xdd, value.length, ...value.map((item) => pack(item)));
  const entries = Object.entries(value);
  return packMap(entries.map(([key, item]) => [pack(key), pack(item)]));
}

/** A map with any keys, in any order, as often as given. */
export function packMap(entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[]): Buffer {
  return sized(0xdf, entries.length, ...entries.flat());
}

/** A token, the number of what follows in 32 bits, and what follows. */
export function sized(token: number, count: number, ...contents: readonly Uint8Array[]): Buffer {
  const head = Buffer.alloc(5, token);
  head.writeUInt32BE(count, 1);
  return Buffer.concat([head, ...contents]);
}

function isList(value: Packable): value is readonly Packable[] {
  return Array.isArray(value);
}
