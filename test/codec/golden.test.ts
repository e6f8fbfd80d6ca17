import { readFile } from 'node:fs/promises';
import test from 'ava';
import {
  FrameDecoder,
  FrameType,
  HoldingsEncoder,
  LeafTable,
  PREAMBLE,
  RangeEncoder,
  WhiteoutEncoder,
  decodeControl,
  decodeHeader,
  decodeHoldings,
  decodeLeafRecords,
  decodeRanges,
  decodeWhiteouts,
  encodeControl,
  encodeHeader,
  leafTableSize,
  type ControlMessage,
  type FrameHeader,
} from '@ballast/shared/protocol';
import { naiveCrc32 } from './naive.js';

// Every vector was written by hand from docs/protocol.md, its checksums by another program's CRC-32. A vector that has
// to change means that programs of two versions no longer understand each other.

/** Bytes from hexadecimal digits; spaces and line ends are there for the reader. */
function bytesOf(...hex: readonly string[]): Buffer {
  return Buffer.from(hex.join('').replaceAll(/\s/g, ''), 'hex');
}

/** 00 01 02 … 1f, where a digest is wanted. */
const DIGEST = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
const OTHER_DIGEST = '808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f';
/** 64 TiB. */
const LARGEST_REGION = 2 ** 46;

interface Vector {
  readonly header: string;
  readonly fields: Omit<FrameHeader, 'payloadChecksum'>;
  readonly payload: Buffer;
}

//                      type flags region sequence length count base payload-checksum header-checksum
const LEAVES: Vector = {
  header: '02 00 0100 05000000 60300000 02000000 0300000001000000 03a53e64 6b146f6c',
  fields: { type: FrameType.leaves, region: 1, sequence: 5, length: 12_384, count: 2, base: 0x1_0000_0003 },
  payload: Buffer.concat([
    //        leaf     mask sent stored
    bytesOf('00000000 0180 0180 00200000 00000000', DIGEST),
    bytesOf('07000000 0001 0001 00100000 00000000', OTHER_DIGEST),
    Buffer.alloc(4096, 0xaa),
    Buffer.alloc(4096, 0xbb),
    Buffer.alloc(4096, 0xcc),
  ]),
};

const WHITEOUTS: Vector = {
  header: '03 00 3f00 04030201 2d000000 05000000 0000000000000000 3e1d79b2 ff04c68d',
  fields: { type: FrameType.whiteouts, region: 63, sequence: 0x0102_0304, length: 45, count: 5, base: 0 },
  payload: bytesOf(
    '0000000000000000 00',
    '0010000000000000 00',
    '0000008000000000 00',
    '0000000001000000 00',
    '00f0ffffff3f0000 00',
  ),
};

const FREE_RANGES: Vector = {
  header: '04 00 0000 06000000 10000000 04000000 0000080000000000 771c57c9 2d052ce5',
  fields: { type: FrameType.freeRanges, region: 0, sequence: 6, length: 16, count: 4, base: 0x8_0000 },
  payload: bytesOf('00 01', '7f 8001', '01 ac02', '808020 8080808010'),
};

const ZERO_RANGES: Vector = {
  header: '05 00 0200 ffffffff 07000000 02000000 0000000000000000 b3e04ccf 3c6db059',
  fields: { type: FrameType.zeroRanges, region: 2, sequence: 0xffff_ffff, length: 7, count: 2, base: 0 },
  payload: bytesOf('02 01', '808001 ff7f'),
};

const HOLDINGS: Vector = {
  header: '06 00 0100 02000000 38000000 01000000 0000002000000000 7f83959a 873c513c',
  fields: { type: FrameType.holdings, region: 1, sequence: 2, length: 56, count: 1, base: 0x2000_0000 },
  payload: bytesOf('00000000 0500 0000', DIGEST, '1111111111111111 2222222222222222'),
};

const FILLER: Vector = {
  header: '08 00 0000 03000000 04000000 00000000 0000000000000000 00000000 70dd2c9b',
  fields: { type: FrameType.filler, region: 0, sequence: 3, length: 4, count: 0, base: 0 },
  payload: bytesOf('deadbeef'),
};

/** What of each payload its checksum covers, in bytes; all of it where nothing is said. */
const CHECKED: Readonly<Record<number, number>> = { [FrameType.leaves]: 2 * 48, [FrameType.filler]: 0 };

/** The first bytes of every stream that QEMU writes: its magic and version. */
const STATE: Vector = {
  header: '07 00 0000 09000000 08000000 00000000 0000000000000000 47502009 a3d9adcc',
  fields: { type: FrameType.state, region: 0, sequence: 9, length: 8, count: 0, base: 0 },
  payload: bytesOf('5145564d 00000003'),
};

const FRAMES = {
  leaves: LEAVES,
  whiteouts: WHITEOUTS,
  freeRanges: FREE_RANGES,
  zeroRanges: ZERO_RANGES,
  holdings: HOLDINGS,
  filler: FILLER,
  state: STATE,
};

test('the preamble is seven letters and the version', (t) => {
  t.deepEqual(PREAMBLE, bytesOf('42 41 4c 4c 41 53 54 01'));
});

test('the naive CRC-32 has the check value that the standard gives', (t) => {
  t.is(naiveCrc32(Buffer.from('123456789', 'latin1')), 0xcbf4_3926);
});

for (const [name, { header, fields, payload }] of Object.entries(FRAMES)) {
  test(`the header of a ${name} frame is these bytes`, (t) => {
    const bytes = bytesOf(header);
    const checked = payload.subarray(0, CHECKED[fields.type]);
    const whole: FrameHeader = { ...fields, payloadChecksum: naiveCrc32(checked) };
    t.is(naiveCrc32(bytes.subarray(0, 28)), bytes.readUInt32LE(28), 'the vector has the wrong header checksum');
    t.deepEqual(encodeHeader(whole), bytes);
    t.deepEqual(decodeHeader(bytes, fields.sequence), whole);
  });
}

test('the table of a leaves frame is these bytes', (t) => {
  const { payload, fields } = LEAVES;
  const table = new LeafTable(2);
  table.write(0, 0, 0x8001, 0x8001, 8192, bytesOf(DIGEST));
  table.write(1, 7, 0x0100, 0x0100, 4096, bytesOf(OTHER_DIGEST));
  t.deepEqual(table.bytes, payload.subarray(0, 96));
  const header: FrameHeader = { ...fields, base: 3, payloadChecksum: 0 };
  t.is(leafTableSize(header), 96);
  t.deepEqual(decodeLeafRecords(header, payload, LARGEST_REGION), [
    { leaf: 3, mask: 0x8001, sent: 0x8001, stored: 8192, codec: 0, at: 96, digest: bytesOf(DIGEST) },
    { leaf: 10, mask: 0x0100, sent: 0x0100, stored: 4096, codec: 0, at: 8288, digest: bytesOf(OTHER_DIGEST) },
  ]);
});

test('the table of a leaves frame whose leaves are compressed, each in its own way, is these bytes', (t) => {
  const expected = bytesOf(
    // leaf   mask sent stored   codec
    '00000000 0180 0180 64000000 00000000',
    DIGEST,
    '01000000 0180 0180 63000000 01000000',
    DIGEST,
    '02000000 0180 0180 00200000 00000000',
    OTHER_DIGEST,
  );
  const table = new LeafTable(3);
  table.write(0, 0, 0x8001, 0x8001, 100, bytesOf(DIGEST));
  table.write(1, 1, 0x8001, 0x8001, 99, bytesOf(DIGEST), 1);
  table.write(2, 2, 0x8001, 0x8001, 8192, bytesOf(OTHER_DIGEST));
  t.deepEqual(table.bytes, expected);
  const payload = Buffer.concat([table.bytes, Buffer.alloc(100 + 99 + 8192)]);
  const header: FrameHeader = { ...LEAVES.fields, length: payload.length, count: 3, base: 0, payloadChecksum: 0 };
  t.deepEqual(
    decodeLeafRecords(header, payload, LARGEST_REGION, ['lz4', 'zstd']).map(({ stored, codec }) => [stored, codec]),
    [
      [100, 0],
      [99, 1],
      [8192, 0],
    ],
  );
});

test('the payload of a whiteouts frame is these bytes', (t) => {
  const { payload, fields } = WHITEOUTS;
  const encoder = new WhiteoutEncoder();
  for (const page of [0, 1, 2 ** 19, 2 ** 20, 2 ** 34 - 1]) encoder.add(page, page + 1);
  t.deepEqual(encoder.take(), payload);
  t.deepEqual(
    [...decodeWhiteouts(payload, fields.count, 2 ** 34)],
    [
      { start: 0, end: 2 },
      { start: 2 ** 19, end: 2 ** 19 + 1 },
      { start: 2 ** 20, end: 2 ** 20 + 1 },
      { start: 2 ** 34 - 1, end: 2 ** 34 },
    ],
  );
});

for (const { name, vector, runs, base } of [
  {
    name: 'freeRanges',
    vector: FREE_RANGES,
    // From the pages 0x80000 on: 1; 127 not, 128; 1 not, 300; 0x80000 not, 2^32.
    runs: [
      [0x8_0000, 0x8_0001],
      [0x8_0080, 0x8_0100],
      [0x8_0101, 0x8_022d],
      [0x10_022d, 0x1_0010_022d],
    ],
    base: 0x8_0000,
  },
  {
    name: 'zeroRanges',
    vector: ZERO_RANGES,
    runs: [
      [2, 3],
      [16_387, 32_770],
    ],
    base: 0,
  },
] as const) {
  test(`the payload of a ${name} frame is these runs`, (t) => {
    t.deepEqual(
      [...decodeRanges(vector.payload, vector.fields.count, base, 2 ** 34)],
      runs.map(([start, end]) => ({ start, end })),
    );
  });
}

test('runs of pages are encoded as these bytes', (t) => {
  const encoder = new RangeEncoder();
  encoder.add(0x8_0000, 0x8_0001);
  encoder.add(0x8_0080, 0x8_0100);
  encoder.add(0x8_0101, 0x8_022d);
  encoder.add(0x10_022d, 0x1_0010_022d);
  t.is(encoder.base, 0x8_0000);
  t.deepEqual(encoder.take(), FREE_RANGES.payload);
});

test('the payload of a holdings frame is these bytes', (t) => {
  const { payload, fields } = HOLDINGS;
  const held = {
    leaf: 0x2000_0000,
    mask: 5,
    digest: bytesOf(DIGEST),
    hints: bytesOf('1111111111111111 2222222222222222'),
  };
  const encoder = new HoldingsEncoder();
  encoder.add(held);
  t.is(encoder.base, held.leaf);
  t.deepEqual(encoder.take(), payload);
  t.deepEqual(decodeHoldings({ ...fields, payloadChecksum: 0 }, payload, LARGEST_REGION), [held]);
});

interface ControlVector {
  readonly name: string;
  readonly message: ControlMessage;
  readonly header: string;
  /** What this side writes. A map is a map 16 whatever its size, and numbers from 2^32 on are float 64. */
  readonly payload: Buffer;
}

/** A string of MessagePack that is shorter than 32 bytes. */
function text(characters: string): string {
  const bytes = Buffer.from(characters);
  return Buffer.concat([Buffer.of(0xa0 | bytes.length), bytes]).toString('hex');
}

/** A string of MessagePack of 32 to 255 bytes. */
function longText(characters: string): string {
  const bytes = Buffer.from(characters);
  return Buffer.concat([Buffer.of(0xd9, bytes.length), bytes]).toString('hex');
}

const KIND = 'a4 6b696e64';
const MAP_DIGEST = '00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff';

const MESSAGES: readonly ControlVector[] = [
  {
    name: 'hello',
    message: {
      kind: 'hello',
      session: bytesOf('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff'),
      regions: [4096, 2 ** 31, 2 ** 32, 2 ** 40],
      dialect: 'ranges',
      compress: 'lz4',
      dataBytesAtMost: 200,
      channels: 2,
      live: false,
    },
    header: '01 00 0000 00000000 89000000 00000000 0000000000000000 8f0b3bd3 f6028f88',
    payload: bytesOf(
      `de0008 ${KIND} a5 68656c6c6f`,
      `${text('session')} c410 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff`,
      `${text('regions')} 94 cd1000 ce80000000 cb41f0000000000000 cb4270000000000000`,
      `${text('dialect')} ${text('ranges')}`,
      `${text('compress')} ${text('lz4')}`,
      `${text('dataBytesAtMost')} ccc8`,
      `${text('channels')} 02`,
      `${text('live')} c2`,
    ),
  },
  {
    name: 'welcome from a destination that holds nothing',
    message: { kind: 'welcome', holds: false, channels: 0 },
    header: '01 00 0000 01000000 21000000 00000000 0000000000000000 88b7bc27 00a6fd7a',
    payload: bytesOf(`de0003 ${KIND} a7 77656c636f6d65 ${text('holds')} c2 ${text('channels')} 00`),
  },
  {
    name: 'welcome from a destination that holds something',
    message: { kind: 'welcome', holds: true, channels: 2 },
    header: '01 00 0000 02000000 21000000 00000000 0000000000000000 64093c08 a087d8e1',
    payload: bytesOf(`de0003 ${KIND} a7 77656c636f6d65 ${text('holds')} c3 ${text('channels')} 02`),
  },
  {
    name: 'published-before',
    message: { kind: 'published-before', root: bytesOf(DIGEST) },
    header: '01 00 0000 03000000 40000000 00000000 0000000000000000 48be21de 32cab790',
    payload: bytesOf(`de0002 ${KIND} b0 7075626c69736865642d6265666f7265 ${text('root')} c420`, DIGEST),
  },
  {
    name: 'refuse',
    message: { kind: 'refuse', code: 'E_BUSY', message: 'this receiver is busy with another sender' },
    header: '01 00 0000 04000000 4e000000 00000000 0000000000000000 e06b64d0 54e67cd1',
    payload: bytesOf(
      `de0003 ${KIND} a6 726566757365`,
      `${text('code')} ${text('E_BUSY')}`,
      `${text('message')} ${longText('this receiver is busy with another sender')}`,
    ),
  },
  {
    name: 'end',
    message: {
      kind: 'end',
      root: bytesOf(DIGEST),
      summary: {
        strategy: 'bitmap',
        dataBytes: 4096,
        zeroBytes: 0,
        freeBytes: 2 ** 33,
        scannedPages: 1,
        askedPages: 70_000,
        whiteouts: 0,
        mapBytes: 12,
        sentBytes: 4096,
        storedBytes: 300,
        mapDigest: MAP_DIGEST,
      },
    },
    header: '01 00 0000 05000000 14010000 00000000 0000000000000000 40400ca8 8300198f',
    payload: bytesOf(
      `de0003 ${KIND} a3 656e64`,
      `${text('root')} c420`,
      DIGEST,
      `${text('summary')} de000b`,
      `${text('strategy')} ${text('bitmap')}`,
      `${text('dataBytes')} cd1000`,
      `${text('zeroBytes')} 00`,
      `${text('freeBytes')} cb4200000000000000`,
      `${text('scannedPages')} 01`,
      `${text('askedPages')} ce00011170`,
      `${text('whiteouts')} 00`,
      `${text('mapBytes')} 0c`,
      `${text('sentBytes')} cd1000`,
      `${text('storedBytes')} cd012c`,
      `${text('mapDigest')} ${longText(MAP_DIGEST)}`,
    ),
  },
  {
    name: 'resend',
    message: {
      kind: 'resend',
      leaves: [
        [0, 7],
        [1, 2 ** 29],
      ],
    },
    header: '01 00 0000 06000000 21000000 00000000 0000000000000000 efb3fdf7 815aac85',
    payload: bytesOf(`de0002 ${KIND} a6 726573656e64 ${text('leaves')} 92 92 00 07 92 01 ce20000000`),
  },
  {
    name: 'verified',
    message: { kind: 'verified', root: bytesOf(DIGEST) },
    header: '01 00 0000 07000000 38000000 00000000 0000000000000000 bb0b69dc 74f8402a',
    payload: bytesOf(`de0002 ${KIND} a8 7665726966696564 ${text('root')} c420`, DIGEST),
  },
  {
    name: 'commit',
    message: { kind: 'commit' },
    header: '01 00 0000 08000000 0f000000 00000000 0000000000000000 12fab219 83cb8cdf',
    payload: bytesOf(`de0001 ${KIND} a6 636f6d6d6974`),
  },
  {
    name: 'published',
    message: { kind: 'published' },
    header: '01 00 0000 09000000 12000000 00000000 0000000000000000 9646b016 275ac804',
    payload: bytesOf(`de0001 ${KIND} a9 7075626c6973686564`),
  },
  {
    name: 'goodbye',
    message: { kind: 'goodbye' },
    header: '01 00 0000 0a000000 10000000 00000000 0000000000000000 2310ac9a 7ffbfcd6',
    payload: bytesOf(`de0001 ${KIND} a7 676f6f64627965`),
  },
  {
    name: 'heartbeat',
    message: { kind: 'heartbeat' },
    header: '01 00 0000 0b000000 12000000 00000000 0000000000000000 58cbf174 fef952e8',
    payload: bytesOf(`de0001 ${KIND} a9 686561727462656174`),
  },
  {
    name: 'join',
    message: { kind: 'join', session: bytesOf('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff') },
    header: '01 00 0000 0c000000 27000000 00000000 0000000000000000 a2d3c5f2 5134e54c',
    payload: bytesOf(`de0002 ${KIND} a4 6a6f696e ${text('session')} c410 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff`),
  },
  {
    name: 'joined',
    message: { kind: 'joined' },
    header: '01 00 0000 0d000000 0f000000 00000000 0000000000000000 bcdd9b02 af583a69',
    payload: bytesOf(`de0001 ${KIND} a6 6a6f696e6564`),
  },
  {
    name: 'ask',
    message: { kind: 'ask', region: 1, first: 128, end: 65536 },
    header: '01 00 0000 0e000000 25000000 00000000 0000000000000000 9539f50f eea3d38a',
    payload: bytesOf(
      `de0004 ${KIND} a3 61736b`,
      `${text('region')} 01 ${text('first')} cc80 ${text('end')} ce00010000`,
    ),
  },
  {
    name: 'finished',
    message: { kind: 'finished' },
    header: '01 00 0000 0f000000 11000000 00000000 0000000000000000 72836e8c b25544da',
    payload: bytesOf(`de0001 ${KIND} a8 66696e6973686564`),
  },
  {
    name: 'abort',
    message: { kind: 'abort', code: 'E_ABORTED', message: 'größer als erwartet' },
    header: '01 00 0000 10000000 3b000000 00000000 0000000000000000 a15e2602 4d0ac388',
    payload: bytesOf(
      `de0003 ${KIND} a5 61626f7274`,
      `${text('code')} ${text('E_ABORTED')}`,
      `${text('message')} ${text('größer als erwartet')}`,
    ),
  },
  {
    name: 'never-published',
    message: { kind: 'never-published' },
    header: '01 00 0000 11000000 18000000 00000000 0000000000000000 7b28c479 6e06b90e',
    payload: bytesOf(`de0001 ${KIND} af 6e657665722d7075626c6973686564`),
  },
  {
    name: 'round',
    message: { kind: 'round', number: 2 },
    header: '01 00 0000 12000000 16000000 00000000 0000000000000000 5f60eea3 d2f7eb17',
    payload: bytesOf(`de0002 ${KIND} a5 726f756e64 ${text('number')} 02`),
  },
  {
    name: 'received',
    message: { kind: 'received', round: 1, again: [[0, 7]] },
    header: '01 00 0000 13000000 22000000 00000000 0000000000000000 db84e7e6 c4d5bd39',
    payload: bytesOf(`de0003 ${KIND} a8 7265636569766564 ${text('round')} 01 ${text('again')} 91 92 00 07`),
  },
  {
    name: 'state-end',
    message: { kind: 'state-end', bytes: 334_405, running: true },
    header: '01 00 0000 14000000 26000000 00000000 0000000000000000 ab576329 71a08cf6',
    payload: bytesOf(`de0003 ${KIND} a9 73746174652d656e64`, `${text('bytes')} ce00051a45`, `${text('running')} c3`),
  },
  {
    name: 'loaded',
    message: { kind: 'loaded' },
    header: '01 00 0000 15000000 0f000000 00000000 0000000000000000 9893e11c 902fd7be',
    payload: bytesOf(`de0001 ${KIND} a6 6c6f61646564`),
  },
  {
    name: 'measure',
    message: { kind: 'measure' },
    header: '01 00 0000 16000000 10000000 00000000 0000000000000000 72d12417 cd5f1391',
    payload: bytesOf(`de0001 ${KIND} a7 6d656173757265`),
  },
  {
    name: 'account',
    message: {
      kind: 'account',
      machine: { kernel: 'Linux 6', processor: 'a processor', cores: 2, memoryBytes: 2 ** 34, node: 'v24' },
      peakBytes: 70_000,
      switchPicoseconds: 45_000,
      threads: [[1_500_000, 7, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]],
    },
    header: '01 00 0000 17000000 a5000000 00000000 0000000000000000 704b1645 f3c0ef98',
    payload: bytesOf(
      `de0005 ${KIND} a7 6163636f756e74`,
      `${text('machine')} de0005 ${text('kernel')} ${text('Linux 6')} ${text('processor')} ${text('a processor')}`,
      `${text('cores')} 02 ${text('memoryBytes')} cb4210000000000000 ${text('node')} ${text('v24')}`,
      `${text('peakBytes')} ce00011170 ${text('switchPicoseconds')} cdafc8`,
      `${text('threads')} 91 9e ce0016e360 07 000102030405060708090a0b`,
    ),
  },
  {
    name: 'probe',
    message: { kind: 'probe' },
    header: '01 00 0000 18000000 0e000000 00000000 0000000000000000 f087ab5f f5b060e1',
    payload: bytesOf(`de0001 ${KIND} a5 70726f6265`),
  },
  {
    name: 'probe-ready',
    message: { kind: 'probe-ready' },
    header: '01 00 0000 19000000 14000000 00000000 0000000000000000 f594a8e6 396bb867',
    payload: bytesOf(`de0001 ${KIND} ab 70726f62652d7265616479`),
  },
  {
    name: 'probe-end',
    message: { kind: 'probe-end' },
    header: '01 00 0000 1a000000 12000000 00000000 0000000000000000 3790a642 ea9bf02f',
    payload: bytesOf(`de0001 ${KIND} a9 70726f62652d656e64`),
  },
  {
    name: 'probed',
    message: { kind: 'probed', bytes: 2 ** 33, microseconds: 1_500_000 },
    header: '01 00 0000 1b000000 30000000 00000000 0000000000000000 1a05eadf 423a1505',
    payload: bytesOf(
      `de0003 ${KIND} a6 70726f626564`,
      `${text('bytes')} cb4200000000000000`,
      `${text('microseconds')} ce0016e360`,
    ),
  },
  {
    name: 'hello that offers a compression besides',
    message: {
      kind: 'hello',
      session: bytesOf('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff'),
      regions: [4096],
      dialect: 'ranges',
      compress: 'lz4',
      offers: ['zstd'],
      dataBytesAtMost: 0,
      channels: 0,
      live: false,
    },
    header: '01 00 0000 1c000000 7e000000 00000000 0000000000000000 9b623296 9c5c9146',
    payload: bytesOf(
      `de0009 ${KIND} a5 68656c6c6f`,
      `${text('session')} c410 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff`,
      `${text('regions')} 91 cd1000`,
      `${text('dialect')} ${text('ranges')}`,
      `${text('compress')} ${text('lz4')}`,
      `${text('offers')} 91 ${text('zstd')}`,
      `${text('dataBytesAtMost')} 00`,
      `${text('channels')} 00`,
      `${text('live')} c2`,
    ),
  },
  {
    name: 'welcome that takes it',
    message: { kind: 'welcome', holds: false, channels: 0, takes: ['zstd'] },
    header: '01 00 0000 1d000000 2d000000 00000000 0000000000000000 d973ec1c 1ca40c83',
    payload: bytesOf(
      `de0004 ${KIND} a7 77656c636f6d65 ${text('holds')} c2 ${text('channels')} 00 ${text('takes')} 91 ${text('zstd')}`,
    ),
  },
];

for (const { name, message, header, payload } of MESSAGES) {
  test(`the control message ${name} is these bytes`, (t) => {
    const bytes = bytesOf(header);
    t.is(naiveCrc32(payload), bytes.readUInt32LE(24), 'the vector has the wrong payload checksum');
    t.is(naiveCrc32(bytes.subarray(0, 28)), bytes.readUInt32LE(28), 'the vector has the wrong header checksum');
    t.deepEqual(encodeControl(message), payload);
    t.deepEqual(decodeControl(payload), message);
  });
}

test('every kind of control message that the protocol page lists has a vector', async (t) => {
  const page = await readFile(new URL('../../../docs/protocol.md', import.meta.url), 'utf8');
  const [, section] = page.split('### 3.1 ');
  const kinds = [...(section?.split('### 3.2 ')[0] ?? '').matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, kind]) => kind);
  t.deepEqual(kinds, [...new Set(MESSAGES.map(({ message }) => message.kind))]);
});

test('a direction that consists of the vectors is decoded frame by frame', (t) => {
  const decoder = new FrameDecoder();
  const stream = Buffer.concat([PREAMBLE, ...MESSAGES.flatMap(({ header, payload }) => [bytesOf(header), payload])]);
  t.is(decoder.push(stream), stream.length);
  for (const { message } of MESSAGES) {
    const frame = decoder.shift();
    t.deepEqual(frame && decodeControl(frame.payload), message);
  }
  t.is(decoder.shift(), undefined);
});

test('integers may come in any width, and as float 64', (t) => {
  const widths = ['07', 'cc07', 'cd0007', 'ce00000007', 'cf0000000000000007', 'd007', 'd10007', 'd200000007'];
  for (const number of [...widths, 'd30000000000000007', 'cb401c000000000000']) {
    const payload = bytesOf(`82 ${KIND} a6 726573656e64 ${text('leaves')} 91 92 00 ${number}`);
    t.deepEqual(decodeControl(payload), { kind: 'resend', leaves: [[0, 7]] }, number);
  }
});
