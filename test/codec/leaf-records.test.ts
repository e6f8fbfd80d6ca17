import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import type { Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import {
  FrameType,
  LeafTable,
  MAX_BATCH_LEAVES,
  decodeLeafRecords,
  leafTableSize,
  type FrameHeader,
  type LeafRecord,
} from '@ballast/shared/protocol';
import { aDigest, aMask, ascendingLeaves } from './arbitraries.js';
import { naivePopCount, readNaiveLeaf, writeNaiveLeaf, type NaiveLeaf } from './naive.js';

const LARGEST_REGION = 2 ** 46;
const DIGEST = Buffer.alloc(32, 0x5a);

interface Leaf {
  readonly leaf: number;
  readonly mask: number;
  readonly sent: number;
  readonly digest: Buffer;
}

/** At most 16 leaves: as many as fit one frame whatever their masks. */
const someLeaves: fc.Arbitrary<Leaf[]> = fc
  .tuple(ascendingLeaves, fc.array(fc.tuple(aMask, fc.integer({ min: 0, max: 0xffff }), aDigest), { minLength: 20 }))
  .map(([leaves, contents]) =>
    leaves.slice(0, 16).flatMap((leaf, index) => {
      const content = contents[index];
      if (content === undefined) return [];
      const [mask, sent, digest] = content;
      // Sent whole, or in part, as after holdings.
      return [{ leaf, mask, sent: index % 2 === 0 ? mask : mask & sent, digest }];
    }),
  )
  // Leaves are named relative to the first one, in 32 bits.
  .map((leaves) => leaves.filter(({ leaf }) => leaf - (leaves[0]?.leaf ?? 0) < 2 ** 32));

function headerOf(count: number, base: number, length: number): FrameHeader {
  return { type: FrameType.leaves, region: 0, sequence: 0, length, count, base, payloadChecksum: 0 };
}

/** A payload of naive records and as many bytes of pages as they say. */
function payloadOf(base: number, records: readonly NaiveLeaf[]): Buffer {
  const pages = records.reduce((sum, { stored }) => sum + stored, 0);
  return Buffer.concat([...records.map((record) => writeNaiveLeaf(BigInt(base), record)), Buffer.alloc(pages, 0x77)]);
}

function naiveOf({ leaf, mask, sent, digest }: Leaf): NaiveLeaf {
  return { leaf: BigInt(leaf), mask, sent, stored: 4096 * naivePopCount(sent), digest: new Uint8Array(digest) };
}

testProp('the fast encoder writes what the naive decoder reads', [someLeaves], (t, leaves) => {
  const base = leaves[0]?.leaf ?? 0;
  const table = new LeafTable(leaves.length);
  table.bytes.fill(0xff);
  for (const [index, { leaf, mask, sent, digest }] of leaves.entries()) {
    table.write(index, leaf - base, mask, sent, 4096 * naivePopCount(sent), digest);
  }
  const read = leaves.map((_, index) =>
    readNaiveLeaf(BigInt(base), table.bytes.subarray(48 * index, 48 * (index + 1))),
  );
  t.deepEqual(
    read.map((record) => ({ ...record, digest: new Uint8Array(record.digest) })),
    leaves.map((leaf) => naiveOf(leaf)),
  );
  t.deepEqual(table.bytes, Buffer.concat(leaves.map((leaf) => writeNaiveLeaf(BigInt(base), naiveOf(leaf)))));
});

testProp('the fast decoder reads what the naive encoder writes', [someLeaves], (t, leaves) => {
  const base = leaves[0]?.leaf ?? 0;
  const payload = payloadOf(
    base,
    leaves.map((leaf) => naiveOf(leaf)),
  );
  let at = 48 * leaves.length;
  const expected: LeafRecord[] = leaves.map((leaf) => {
    const stored = 4096 * naivePopCount(leaf.sent);
    const record = { ...leaf, stored, codec: 0, at };
    at += stored;
    return record;
  });
  t.deepEqual(decodeLeafRecords(headerOf(leaves.length, base, payload.length), payload, LARGEST_REGION), expected);
});

testProp(
  'a table with any byte changed is read as what it says now, or the peer is blamed',
  [someLeaves, fc.nat(), fc.integer({ min: 1, max: 255 })],
  (t, leaves, where, change) => {
    const base = leaves[0]?.leaf ?? 0;
    const payload = payloadOf(
      base,
      leaves.map((leaf) => naiveOf(leaf)),
    );
    const at = where % (48 * leaves.length);
    payload[at] = (payload[at] ?? 0) ^ change;
    try {
      const records = decodeLeafRecords(headerOf(leaves.length, base, payload.length), payload, LARGEST_REGION);
      t.is(
        records.reduce((sum, { stored }) => sum + stored, 48 * leaves.length),
        payload.length,
      );
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

testProp(
  'whatever bytes come, records of the region are returned or the peer is blamed',
  [fc.uint8Array({ maxLength: 200 }), fc.nat(5), fc.nat(1000), fc.integer({ min: 1, max: 100 })],
  (t, payload, count, base, pages) => {
    try {
      decodeLeafRecords(headerOf(count, base, payload.length), Buffer.from(payload), pages * 4096);
      t.pass();
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

test('a frame may have 241 leaves of one page each', (t) => {
  const records = Array.from({ length: 241 }, (_, leaf) => naiveOf({ leaf, mask: 4, sent: 4, digest: DIGEST }));
  const payload = payloadOf(0, records);
  t.is(decodeLeafRecords(headerOf(241, 0, payload.length), payload, LARGEST_REGION).length, 241);
  t.is(MAX_BATCH_LEAVES, 241);
});

test('a frame may have 1 MiB of pages', (t) => {
  const records = Array.from({ length: 16 }, (_, leaf) =>
    naiveOf({ leaf, mask: 0xffff, sent: 0xffff, digest: DIGEST }),
  );
  const payload = payloadOf(0, records);
  t.is(payload.length, 16 * 48 + 2 ** 20);
  t.is(decodeLeafRecords(headerOf(16, 0, payload.length), payload, LARGEST_REGION).length, 16);
});

test('a leaf that the receiver holds already has a record and no bytes', (t) => {
  const payload = payloadOf(0, [naiveOf({ leaf: 3, mask: 0xffff, sent: 0, digest: DIGEST })]);
  t.is(payload.length, 48);
  const [record] = decodeLeafRecords(headerOf(1, 0, 48), payload, LARGEST_REGION);
  t.deepEqual(record, { leaf: 3, mask: 0xffff, sent: 0, stored: 0, codec: 0, at: 48, digest: DIGEST });
});

test('the last leaf of a region may be short, and the mask must fit it', (t) => {
  const regionBytes = 65536 + 3 * 4096;
  const decode = (mask: number): LeafRecord[] => {
    const payload = payloadOf(0, [naiveOf({ leaf: 1, mask, sent: mask, digest: DIGEST })]);
    return decodeLeafRecords(headerOf(1, 0, payload.length), payload, regionBytes);
  };
  t.is(decode(0b111).length, 1);
  t.throws(() => decode(0b1000), { code: ErrorCode.PROTOCOL, message: /pages beyond the region: leaf 1/ });
});

test('the checked part of a leaves frame is its table, and never more than the payload', (t) => {
  t.is(leafTableSize(headerOf(3, 0, 10_000)), 144);
  t.is(leafTableSize(headerOf(2 ** 32 - 1, 0, 10_000)), 10_000);
  t.is(leafTableSize(headerOf(0, 0, 10_000)), 0);
});

/** A frame of these records, each of which may lie; by default one page of leaf 5. */
interface Lie {
  readonly what: string;
  readonly records?: readonly Partial<NaiveLeaf>[];
  readonly base?: number;
  readonly count?: number;
  /** Applied to the payload that would fit the records. */
  readonly spoil?: (payload: Buffer) => Buffer;
  readonly regionBytes?: number;
  readonly message: RegExp;
}

const LIES: readonly Lie[] = [
  { what: 'no record', records: [], message: /number 0; 1 to 241 are allowed/ },
  {
    what: '242 records',
    records: Array.from({ length: 242 }, (_, leaf) => ({ leaf: BigInt(leaf) })),
    message: /number 242; 1 to 241 are allowed/,
  },
  { what: '2^32 - 1 records in one', count: 2 ** 32 - 1, message: /number 4294967295/ },
  { what: 'a table that goes past the end', count: 100, message: /end inside their table/ },
  { what: 'less than one record', spoil: (payload) => payload.subarray(0, 47), message: /end inside their table/ },
  { what: 'the same leaf twice', records: [{ leaf: 5n }, { leaf: 5n }], message: /do not ascend/ },
  { what: 'leaves that descend', records: [{ leaf: 6n }, { leaf: 5n }], message: /do not ascend/ },
  { what: 'a leaf beyond the region', regionBytes: 5 * 65536, message: /beyond the region: leaf 5 of 5/ },
  { what: 'a base beyond the region', base: 2 ** 30, records: [{ leaf: 2n ** 30n }], message: /beyond the region/ },
  {
    what: 'the largest base and the largest index',
    base: 2 ** 53 - 1,
    records: [{ leaf: 2n ** 53n - 1n + 2n ** 32n - 1n }],
    message: /beyond the region/,
  },
  { what: 'a leaf without pages', records: [{ mask: 0, sent: 0, stored: 0 }], message: /hold no page: leaf 5/ },
  {
    what: 'a page that is sent and not in the mask',
    records: [{ mask: 1, sent: 2 }],
    message: /outside their mask: leaf 5/,
  },
  {
    what: 'a page that is sent beside one in the mask',
    records: [{ mask: 1, sent: 3, stored: 8192 }],
    message: /outside their mask: leaf 5/,
  },
  { what: 'bytes for a page that is not sent', records: [{ mask: 1, sent: 0 }], message: /4096 bytes for 0 pages/ },
  { what: 'no bytes for a page that is sent', records: [{ stored: 0 }], message: /0 bytes for 1 pages/ },
  { what: 'half a page', records: [{ stored: 2048 }], message: /2048 bytes for 1 pages/ },
  {
    what: 'bytes of one leaf counted to another',
    records: [
      { leaf: 1n, stored: 8192 },
      { leaf: 2n, stored: 0 },
    ],
    message: /8192 bytes for 1 pages/,
  },
  {
    what: '4 GiB for a page',
    spoil(payload) {
      payload.writeUInt32LE(2 ** 32 - 1, 8);
      return payload;
    },
    message: /4294967295 bytes for 1 pages/,
  },
  {
    what: 'a compression of pages that are not compressed',
    spoil(payload) {
      payload[12] = 1;
      return payload;
    },
    message: /name a compression of pages that are not compressed: leaf 5/,
  },
  {
    what: 'the last byte of such a compression',
    spoil(payload) {
      payload[15] = 128;
      return payload;
    },
    message: /name a compression of pages that are not compressed: leaf 5/,
  },
  { what: 'pages that end early', spoil: (payload) => payload.subarray(0, -1), message: /end inside their pages/ },
  {
    what: 'a byte after the pages',
    spoil: (payload) => Buffer.concat([payload, Buffer.alloc(1)]),
    message: /bytes after the last page/,
  },
  {
    what: 'a page after the pages',
    spoil: (payload) => Buffer.concat([payload, Buffer.alloc(4096)]),
    message: /bytes after the last page/,
  },
  {
    what: 'more than 1 MiB of pages',
    records: Array.from({ length: 257 }, (_, page) => page)
      .filter((page) => page % 16 === 0)
      .map((page) =>
        page < 256 ? { leaf: BigInt(page / 16), mask: 0xffff, sent: 0xffff, stored: 65536 } : { leaf: 16n },
      ),
    message: /1052672 bytes of pages; at most 1048576/,
  },
];

for (const { what, records = [{}], base = 0, count, spoil, regionBytes = LARGEST_REGION, message } of LIES) {
  test(`${what}: refused`, (t) => {
    const whole = records.map((record) => ({ leaf: 5n, mask: 1, sent: 1, stored: 4096, digest: DIGEST, ...record }));
    const fitting = payloadOf(base, whole);
    const payload = spoil?.(fitting) ?? fitting;
    t.throws(() => decodeLeafRecords(headerOf(count ?? whole.length, base, payload.length), payload, regionBytes), {
      instanceOf: BallastError,
      code: ErrorCode.PROTOCOL,
      message,
    });
  });
}

test('a leaf may take less than its pages only where it may be compressed, but never nothing', (t) => {
  const table = new LeafTable(1);
  const decode = (stored: number, ...compressions: Compression[]): LeafRecord[] => {
    table.write(0, 0, 0x0007, 0x0005, stored, DIGEST);
    const payload = Buffer.concat([table.bytes, Buffer.alloc(stored)]);
    return decodeLeafRecords(headerOf(1, 0, payload.length), payload, LARGEST_REGION, compressions);
  };
  for (const stored of [1, 100, 8191]) {
    t.like(decode(stored, 'lz4')[0], { sent: 5, stored, codec: 0, at: 48 });
    t.throws(() => decode(stored, 'none'), { message: /bytes for 2 pages/ });
    t.throws(() => decode(stored, 'none', 'zstd'), { message: /bytes for 2 pages/ });
  }
  t.like(decode(8192, 'lz4')[0], { sent: 5, stored: 8192 });
  for (const stored of [0, 8193]) t.throws(() => decode(stored, 'lz4'), { message: /bytes for 2 pages/ });
});

test('a leaf may name each compression that was agreed on, and no other', (t) => {
  const table = new LeafTable(1);
  const decode = (codec: number, ...compressions: Compression[]): LeafRecord[] => {
    table.write(0, 0, 0x0007, 0x0005, 100, DIGEST, codec);
    const payload = Buffer.concat([table.bytes, Buffer.alloc(100)]);
    return decodeLeafRecords(headerOf(1, 0, payload.length), payload, LARGEST_REGION, compressions);
  };
  t.like(decode(0, 'lz4', 'zstd')[0], { stored: 100, codec: 0 });
  t.like(decode(1, 'lz4', 'zstd')[0], { stored: 100, codec: 1 });
  t.like(decode(1, 'none', 'zstd')[0], { stored: 100, codec: 1 });
  for (const codec of [2, 256, 2 ** 31, 2 ** 32 - 1])
    t.throws(() => decode(codec, 'lz4', 'zstd'), { message: /name a compression that was not agreed on: leaf 0/ });
  t.throws(() => decode(1, 'lz4'), { message: /not agreed on/ });
});

test('what a frame carries is counted before it is compressed', (t) => {
  const payloadFor = (leaves: number): Buffer => {
    const table = new LeafTable(leaves);
    for (let leaf = 0; leaf < leaves; leaf++) table.write(leaf, leaf, 0xffff, 0xffff, 10, DIGEST);
    return Buffer.concat([table.bytes, Buffer.alloc(10 * leaves)]);
  };
  const decode = (leaves: number): LeafRecord[] => {
    const payload = payloadFor(leaves);
    return decodeLeafRecords(headerOf(leaves, 0, payload.length), payload, LARGEST_REGION, ['lz4']);
  };
  t.is(decode(16).length, 16);
  t.throws(() => decode(17), { message: /carry 1114112 bytes of pages/ });
});
