import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { FrameType, MAX_PAYLOAD, decodeHeader, encodeHeader, type FrameHeader } from '@ballast/shared/protocol';
import { anIndex } from './arbitraries.js';
import { readNaiveHeader, writeNaiveHeader, type NaiveHeader } from './naive.js';

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const aBase = anIndex(2 ** 53, [2 ** 31, 2 ** 32, 2 ** 46, 2 ** 53 - 1]);

/** Any header that the protocol allows. */
const aHeader: fc.Arbitrary<FrameHeader> = fc
  .record({
    type: fc.constantFrom(...Object.values(FrameType)),
    region: fc.integer({ min: 0, max: 0xffff }),
    sequence: u32,
    length: u32,
    count: u32,
    base: aBase,
    payloadChecksum: u32,
  })
  .map((header) => {
    const hasNoRecords = ([FrameType.control, FrameType.state, FrameType.filler] as readonly FrameType[]).includes(
      header.type,
    );
    return {
      ...header,
      length: header.length % (MAX_PAYLOAD[header.type] + 1),
      region: hasNoRecords ? 0 : header.region,
      count: hasNoRecords ? 0 : header.count,
      base: hasNoRecords || header.type === FrameType.whiteouts ? 0 : header.base,
    };
  });

testProp('the fast encoder writes what the naive decoder reads', [aHeader], (t, header) => {
  t.deepEqual(readNaiveHeader(encodeHeader(header)), { ...header, flags: 0, base: BigInt(header.base) });
});

testProp('the fast decoder reads what the naive encoder writes', [aHeader], (t, header) => {
  const bytes = writeNaiveHeader({ ...header, flags: 0, base: BigInt(header.base) });
  t.deepEqual(decodeHeader(Buffer.from(bytes), header.sequence), header);
});

testProp(
  'whatever 32 bytes come, a header is returned or the damage named',
  [fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.boolean()],
  (t, bytes, checksumFits) => {
    const { base, ...rest } = naiveFieldsOf(bytes);
    const header = Buffer.from(checksumFits ? writeNaiveHeader({ ...rest, base }) : bytes);
    try {
      t.is(decodeHeader(header, rest.sequence).sequence, rest.sequence);
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, checksumFits ? ErrorCode.PROTOCOL : ErrorCode.CORRUPT_STREAM);
    }
  },
);

/** The fields of a header whose checksum nobody looks at. */
function naiveFieldsOf(bytes: Uint8Array): NaiveHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
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

const GOOD: NaiveHeader = {
  type: FrameType.leaves,
  flags: 0,
  region: 1,
  sequence: 9,
  length: 4144,
  count: 1,
  base: 7n,
  payloadChecksum: 0x1234_5678,
};

function decode(changes: Partial<NaiveHeader>): FrameHeader {
  return decodeHeader(Buffer.from(writeNaiveHeader({ ...GOOD, ...changes })), GOOD.sequence);
}

for (const { what, changes, message } of [
  { what: 'type 0', changes: { type: 0 }, message: /unknown type 0/ },
  { what: 'type 9, which does not exist yet', changes: { type: 9 }, message: /unknown type 9/ },
  { what: 'type 255', changes: { type: 255 }, message: /unknown type 255/ },
  { what: 'a flag', changes: { flags: 1 }, message: /unknown flags 1/ },
  { what: 'the highest flag', changes: { flags: 128 }, message: /unknown flags 128/ },
  { what: 'a base of 2^53', changes: { base: 2n ** 53n }, message: /beyond 2\^53/ },
  { what: 'the largest base', changes: { base: 2n ** 64n - 1n }, message: /beyond 2\^53/ },
  {
    what: 'a control frame of a region',
    changes: { type: FrameType.control, count: 0, base: 0n },
    message: /must be 0/,
  },
  {
    what: 'a control frame of several records',
    changes: { type: FrameType.control, region: 0, base: 0n },
    message: /must be 0/,
  },
  {
    what: 'a control frame with a base',
    changes: { type: FrameType.control, region: 0, count: 0 },
    message: /must be 0/,
  },
  { what: 'a state frame of a region', changes: { type: FrameType.state, count: 0, base: 0n }, message: /must be 0/ },
  { what: 'a state frame with a base', changes: { type: FrameType.state, region: 0, count: 0 }, message: /must be 0/ },
  { what: 'a whiteouts frame with a base', changes: { type: FrameType.whiteouts }, message: /must be 0/ },
]) {
  test(`a header with ${what} is refused`, (t) => {
    t.throws(() => decode(changes), { instanceOf: BallastError, code: ErrorCode.PROTOCOL, message });
  });
}

for (const [name, type] of Object.entries(FrameType)) {
  // The limits of docs/protocol.md, once more.
  const limit =
    { control: 65536, leaves: 1_060_144, whiteouts: 65_529, state: 262_144, filler: 1_048_576 }[name] ?? 65536;
  const fields: Partial<NaiveHeader> = { type, region: 0, count: 0, base: 0n };

  test(`a ${name} frame may be as long as its limit`, (t) => {
    t.is(decode({ ...fields, length: limit }).length, limit);
  });

  for (const length of [limit + 1, 2 ** 31, 2 ** 32 - 1]) {
    test(`a ${name} frame of ${length} bytes is refused by its header alone`, (t) => {
      t.throws(() => decode({ ...fields, length }), {
        instanceOf: BallastError,
        code: ErrorCode.PROTOCOL,
        message: new RegExp(`with ${length} bytes; at most ${limit} `),
      });
    });
  }
}

for (const sequence of [8, 10, 0, 2 ** 32 - 1]) {
  test(`frame ${sequence} where frame 9 is due means that the stream is damaged`, (t) => {
    t.throws(() => decode({ sequence }), {
      instanceOf: BallastError,
      code: ErrorCode.CORRUPT_STREAM,
      message: new RegExp(`frame 9 was expected and frame ${sequence} came`),
    });
  });
}

test('damage is found before the fields are judged', (t) => {
  const bytes = Buffer.from(writeNaiveHeader({ ...GOOD, type: 99, flags: 3, sequence: 1 }));
  bytes[31] = (bytes[31] ?? 0) ^ 1;
  t.throws(() => decodeHeader(bytes, 9), { code: ErrorCode.CORRUPT_STREAM, message: /checksum/ });
});
