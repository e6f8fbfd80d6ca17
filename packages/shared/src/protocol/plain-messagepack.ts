/** Containers inside one another: a message, a list in it, a pair in the list. */
const MAX_DEPTH = 3;

/** What stands behind a token that has no length in its low bits: bytes of a number, or of the length of something. */
const NUMBER_BYTES: ReadonlyMap<number, number> = new Map([
  [0xc2, 0], // false
  [0xc3, 0], // true
  [0xcb, 8], // float 64
  [0xcc, 1],
  [0xcd, 2],
  [0xce, 4],
  [0xcf, 8],
  [0xd0, 1],
  [0xd1, 2],
  [0xd2, 4],
  [0xd3, 8],
]);
const BYTES_LENGTH: ReadonlyMap<number, number> = new Map([
  [0xc4, 1], // bin
  [0xc5, 2],
  [0xc6, 4],
  [0xd9, 1], // str
  [0xda, 2],
  [0xdb, 4],
]);
const ITEMS_LENGTH: ReadonlyMap<number, number> = new Map([
  [0xdc, 2], // array
  [0xdd, 4],
  [0xde, 2], // map
  [0xdf, 4],
]);

/**
 * Checks that the bytes are exactly one value of plain MessagePack: maps with string keys, arrays, strings, binary,
 * integers, float 64 and booleans. The library that reads it afterwards knows much more, which a peer must not reach:
 * extensions for regular expressions, typed arrays, errors, records whose readers are compiled, and references, with
 * which a thousand bytes describe a value that takes longer than anyone lives to look at.
 *
 * Nothing is allocated from a length: each item takes a byte at least, so the work is bounded by the bytes that came.
 * @throws Error that says what was found
 */
export function checkPlain(bytes: Buffer): void {
  let at = 0;

  const skip = (count: number): void => {
    if (count > bytes.length - at) throw new Error(`it ends inside a value that begins at byte ${at}`);
    at += count;
  };
  const number = (size: number): number => {
    const start = at;
    skip(size);
    return bytes.readUIntBE(start, size);
  };
  const key = (): string => {
    const token = bytes[at];
    const isString = token !== undefined && ((token >= 0xa0 && token < 0xc0) || (token >= 0xd9 && token <= 0xdb));
    if (!isString) throw new Error(`a map has a key at byte ${at} that is no string`);
    // Without what says how long it is: the same length can be written in several ways.
    const start = at + 1 + (BYTES_LENGTH.get(token) ?? 0);
    value(MAX_DEPTH);
    return bytes.toString('latin1', start, at);
  };
  const items = (count: number, isMap: boolean, depth: number): void => {
    if (depth === MAX_DEPTH) throw new Error(`it is nested deeper than ${MAX_DEPTH} levels`);
    const seen = new Set<string>();
    for (let item = 0; item < count; item++) {
      if (isMap && seen.size === seen.add(key()).size) throw new Error(`a map has a key twice, before byte ${at}`);
      value(depth + 1);
    }
  };
  const value = (depth: number): void => {
    const token = bytes[at++];
    if (token === undefined) throw new Error('it ends where a value was expected');
    if (token < 0x80 || token >= 0xe0) return;
    if (token < 0xa0) {
      items(token & 15, token < 0x90, depth);
      return;
    }
    if (token < 0xc0) {
      skip(token & 31);
      return;
    }
    const numberBytes = NUMBER_BYTES.get(token);
    const bytesLength = BYTES_LENGTH.get(token);
    const itemsLength = ITEMS_LENGTH.get(token);
    if (numberBytes !== undefined) skip(numberBytes);
    else if (bytesLength !== undefined) skip(number(bytesLength));
    else if (itemsLength !== undefined) items(number(itemsLength), token >= 0xde, depth);
    else throw new Error(`it has a value of type 0x${token.toString(16)} at byte ${at - 1}, which no message has`);
  };

  value(0);
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes follow the message`);
}
