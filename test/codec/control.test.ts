import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import {
  Dialect,
  decodeControl,
  encodeControl,
  type ControlKind,
  type ControlMessage,
  type ControlOf,
  type Summary,
} from '@ballast/shared/protocol';
import { Raw, pack, packMap, sized, type Packable } from './messagepack.js';

const aByteCount = fc.oneof(fc.nat(300), fc.maxSafeNat(), fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1));
const aRound = fc.integer({ min: 1, max: 10_000 });
const bytes = (length: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));
const aText = fc.string({ unit: 'grapheme', maxLength: 1024 }).filter((text) => text.length <= 1024);

const aSummary: fc.Arbitrary<Summary> = fc.record({
  strategy: fc.constantFrom('unmodified', 'consult', 'skip', 'bitmap'),
  dataBytes: aByteCount,
  zeroBytes: aByteCount,
  freeBytes: aByteCount,
  scannedPages: aByteCount,
  askedPages: aByteCount,
  whiteouts: aByteCount,
  mapBytes: aByteCount,
  sentBytes: aByteCount,
  storedBytes: aByteCount,
  mapDigest: bytes(32).map((digest) => digest.toString('hex')),
});

const aChannelCount = fc.integer({ min: 0, max: 16 });

const aMachineText = fc.string({ maxLength: 200 });

const someCompressions = fc.shuffledSubarray<'lz4' | 'zstd'>(['lz4', 'zstd'], { minLength: 1 });

/** All of these fields, but for one that may be left out. */
function anyFields<T, K extends keyof T>(
  fields: { [P in keyof T]: fc.Arbitrary<T[P]> },
  optional: K,
): fc.Arbitrary<Omit<T, K> & Partial<Pick<T, K>>> {
  const required = Object.keys(fields).filter((name) => name !== optional) as Exclude<keyof T, K>[];
  return fc.record(fields, { requiredKeys: required }) as fc.Arbitrary<Omit<T, K> & Partial<Pick<T, K>>>;
}

/** Fields that may be left out. */
const OPTIONAL: readonly string[] = ['offers', 'takes'];

/** Any message, of every kind. */
const ARBITRARIES: { readonly [K in ControlKind]: fc.Arbitrary<ControlOf<K>> } = {
  hello: anyFields(
    {
      kind: fc.constant('hello'),
      session: bytes(16),
      regions: fc.oneof(
        fc.array(
          fc.integer({ min: 1, max: 2 ** 28 }).map((pages) => pages * 4096),
          { minLength: 1, maxLength: 64 },
        ),
        fc.constantFrom<number[]>([2 ** 46], [2 ** 45, 2 ** 45], [4096]),
      ),
      dialect: fc.constantFrom(...Object.values(Dialect)),
      compress: fc.constantFrom(...Object.values(Compression)),
      offers: someCompressions,
      dataBytesAtMost: aByteCount,
      channels: aChannelCount,
      live: fc.boolean(),
    },
    'offers',
  ),
  welcome: anyFields(
    { kind: fc.constant('welcome'), holds: fc.boolean(), channels: aChannelCount, takes: someCompressions },
    'takes',
  ),
  join: fc.record({ kind: fc.constant('join'), session: bytes(16) }),
  joined: fc.record({ kind: fc.constant('joined') }),
  ask: fc.record({
    kind: fc.constant('ask'),
    region: fc.integer({ min: 0, max: 63 }),
    first: aByteCount,
    end: aByteCount,
  }),
  finished: fc.record({ kind: fc.constant('finished') }),
  'published-before': fc.record({ kind: fc.constant('published-before'), root: bytes(32) }),
  refuse: fc.record({ kind: fc.constant('refuse'), code: aText, message: aText }),
  end: fc.record({ kind: fc.constant('end'), root: bytes(32), summary: aSummary }),
  resend: fc.record({
    kind: fc.constant('resend'),
    leaves: fc.array(fc.tuple(aByteCount, aByteCount), { minLength: 1, maxLength: 1024 }),
  }),
  verified: fc.record({ kind: fc.constant('verified'), root: bytes(32) }),
  measure: fc.record({ kind: fc.constant('measure') }),
  account: fc.record({
    kind: fc.constant('account'),
    machine: fc.record({
      kernel: aMachineText,
      processor: aMachineText,
      cores: aByteCount,
      memoryBytes: aByteCount,
      node: aMachineText,
    }),
    peakBytes: aByteCount,
    switchPicoseconds: aByteCount,
    threads: fc.array(fc.array(aByteCount, { minLength: 14, maxLength: 14 }), { minLength: 1, maxLength: 17 }),
  }),
  probe: fc.record({ kind: fc.constant('probe') }),
  'probe-ready': fc.record({ kind: fc.constant('probe-ready') }),
  'probe-end': fc.record({ kind: fc.constant('probe-end') }),
  probed: fc.record({
    kind: fc.constant('probed'),
    bytes: fc.integer({ min: 0, max: 2 ** 36 }),
    microseconds: fc.integer({ min: 0, max: 60_000_000 }),
  }),
  commit: fc.record({ kind: fc.constant('commit') }),
  published: fc.record({ kind: fc.constant('published') }),
  goodbye: fc.record({ kind: fc.constant('goodbye') }),
  heartbeat: fc.record({ kind: fc.constant('heartbeat') }),
  abort: fc.record({ kind: fc.constant('abort'), code: aText, message: aText }),
  'never-published': fc.record({ kind: fc.constant('never-published') }),
  round: fc.record({ kind: fc.constant('round'), number: aRound }),
  received: fc.record({
    kind: fc.constant('received'),
    round: aRound,
    again: fc.array(fc.tuple(aByteCount, aByteCount), { maxLength: 1024 }),
  }),
  'state-end': fc.record({ kind: fc.constant('state-end'), bytes: aByteCount, running: fc.boolean() }),
  loaded: fc.record({ kind: fc.constant('loaded') }),
};

const aMessage: fc.Arbitrary<ControlMessage> = fc.oneof(...Object.values(ARBITRARIES));

/** How a refusal looks, whatever was wrong. */
const REFUSED = { instanceOf: BallastError, code: ErrorCode.PROTOCOL };
/** Refused before the library that reads MessagePack sees it. */
const NOT_PLAIN = { ...REFUSED, message: /not plain MessagePack/ };
/** MessagePack, but none of the messages. */
const UNKNOWN = { ...REFUSED, message: /the protocol does not know/ };

for (const [kind, arbitrary] of Object.entries(ARBITRARIES)) {
  testProp(`${kind} comes back as it was`, [arbitrary as fc.Arbitrary<ControlMessage>], (t, message) => {
    t.deepEqual(decodeControl(encodeControl(message)), message);
  });

  testProp(
    `${kind} from another encoder, with the widest form of everything, is understood`,
    [arbitrary as fc.Arbitrary<ControlMessage>],
    (t, message) => {
      const payload = pack(message);
      // A resend of 1024 leaves is larger than a frame in this form.
      if (payload.length <= 65536) t.deepEqual(decodeControl(payload), message);
      else t.true(kind === 'resend' || kind === 'received');
    },
  );

  testProp(
    `${kind} with a field that nobody knows is refused`,
    [arbitrary as fc.Arbitrary<ControlMessage>, fc.string({ maxLength: 20 })],
    (t, message, name) => {
      fc.pre(!Object.hasOwn(message, name));
      const entries = Object.entries(message as Record<string, Packable>);
      const payload = packMap([...entries, [name, 0] as const].map(([key, value]) => [pack(key), pack(value)]));
      t.throws(() => decodeControl(payload), UNKNOWN);
    },
  );

  testProp(
    `${kind} without one of the fields that it must have is refused`,
    [arbitrary as fc.Arbitrary<ControlMessage>],
    (t, message) => {
      for (const name of Object.keys(message).filter((field) => !OPTIONAL.includes(field))) {
        const rest = Object.fromEntries(Object.entries(message).filter(([key]) => key !== name));
        t.throws(() => decodeControl(pack(rest)), UNKNOWN);
      }
    },
  );

  testProp(
    `${kind} with a field of another type is refused`,
    [arbitrary as fc.Arbitrary<ControlMessage>],
    (t, message) => {
      for (const [name, value] of Object.entries(message as Record<string, Packable>)) {
        for (const other of [true, 1.5, -1, 'x', Buffer.alloc(3), [], {}, [[]], { x: 1 }] as const) {
          if (typeof other === typeof value && typeof value !== 'object' && typeof value !== 'number') continue;
          // The one list that may be empty.
          if (name === 'again' && Array.isArray(other) && other.length === 0) continue;
          t.throws(() => decodeControl(pack({ ...message, [name]: other })), UNKNOWN, name);
        }
      }
    },
  );

  testProp(`${kind} that is cut short is refused`, [arbitrary as fc.Arbitrary<ControlMessage>], (t, message) => {
    const payload = encodeControl(message);
    const step = Math.ceil(payload.length / 200);
    for (let length = 0; length < payload.length; length += step) {
      t.throws(() => decodeControl(payload.subarray(0, length)), NOT_PLAIN);
    }
  });
}

testProp(
  'a message followed by anything is refused',
  [aMessage, fc.uint8Array({ minLength: 1 })],
  (t, message, more) => {
    const error = t.throws(() => decodeControl(Buffer.concat([encodeControl(message), more])), NOT_PLAIN);
    t.deepEqual(error.cause, new Error(`${more.length} bytes follow the message`));
  },
);

testProp(
  'whatever bytes come, they are a message or the peer is blamed',
  [fc.uint8Array({ maxLength: 400 })],
  (t, raw) => {
    try {
      t.truthy(decodeControl(Buffer.from(raw)).kind);
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

testProp(
  'a message with some bytes changed is a message or the peer is blamed',
  [aMessage, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 })],
  (t, message, changes) => {
    const payload = encodeControl(message);
    for (const [at, byte] of changes) payload[at % payload.length] = byte;
    try {
      const changed = decodeControl(payload);
      // What is let through is a message that could have been sent.
      t.deepEqual(decodeControl(encodeControl(changed)), changed);
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

const DIGEST = Buffer.alloc(32, 1);
const HELLO: Readonly<Record<string, Packable>> = {
  kind: 'hello',
  session: Buffer.alloc(16),
  regions: [4096],
  dialect: 'ranges',
  compress: 'none',
  dataBytesAtMost: 0,
  channels: 0,
  live: false,
};
const SUMMARY: Readonly<Record<string, Packable>> = {
  strategy: 'skip',
  dataBytes: 0,
  zeroBytes: 0,
  freeBytes: 0,
  scannedPages: 0,
  askedPages: 0,
  whiteouts: 0,
  mapBytes: 0,
  sentBytes: 0,
  storedBytes: 0,
  mapDigest: '0'.repeat(64),
};
const END: Readonly<Record<string, Packable>> = { kind: 'end', root: DIGEST, summary: SUMMARY };

test('the messages that the refusals below are made of are good ones', (t) => {
  t.is(decodeControl(pack(HELLO)).kind, 'hello');
  t.is(decodeControl(pack(END)).kind, 'end');
});

/** A number that is allowed nowhere. */
const NO_COUNTS: readonly Packable[] = [-1, -1n, 0.5, 2 ** 53, 2n ** 64n - 1n, -(2n ** 63n), NaN, Infinity, -Infinity];

const REFUSALS: Readonly<Record<string, Packable>> = {
  'nothing in it': {},
  'a list instead of a map': ['kind', 'commit'],
  'a number instead of a map': 7,
  'a string instead of a map': 'commit',
  'a kind that nobody knows': { kind: 'hallo' },
  'an empty kind': { kind: '' },
  'a kind in capitals': { kind: 'COMMIT' },
  'the name of a method as its kind': { kind: 'toString' },
  'the name of the prototype as its kind': { kind: '__proto__' },
  'the name of the constructor as its kind': { kind: 'constructor' },
  'a number as its kind': { kind: 1 },
  'a list as its kind': { kind: ['commit'] },
  'a field __proto__': { kind: 'commit', ['__proto__']: { x: 1 } },
  'a field constructor': { kind: 'commit', constructor: { prototype: {} } },
  'a session of 15 bytes': { ...HELLO, session: Buffer.alloc(15) },
  'a session of 17 bytes': { ...HELLO, session: Buffer.alloc(17) },
  'a session that is a list of numbers': { ...HELLO, session: Array.from({ length: 16 }, () => 0) },
  'a session that is a string': { ...HELLO, session: 'x'.repeat(16) },
  'no regions': { ...HELLO, regions: [] },
  '65 regions': { ...HELLO, regions: Array.from({ length: 65 }, () => 4096) },
  'a region of no bytes': { ...HELLO, regions: [0] },
  'a region of 4095 bytes': { ...HELLO, regions: [4095] },
  'a region of 4097 bytes': { ...HELLO, regions: [4097] },
  'a region beyond 2^46': { ...HELLO, regions: [2 ** 46 + 4096] },
  'regions beyond 2^46 in all': { ...HELLO, regions: [2 ** 45, 2 ** 45, 4096] },
  'a bad region behind a good one': { ...HELLO, regions: [4096, 1] },
  'a dialect that nobody knows': { ...HELLO, dialect: 'bitmap' },
  'the name of a method as dialect': { ...HELLO, dialect: 'valueOf' },
  'no compression among the offers': { ...HELLO, offers: [] },
  'a compression that nobody knows among the offers': { ...HELLO, offers: ['gzip'] },
  'none among the offers': { ...HELLO, offers: ['none'] },
  'the same compression offered twice': { ...HELLO, offers: ['zstd', 'zstd'] },
  'three offers': { ...HELLO, offers: ['zstd', 'lz4', 'lz4'] },
  'a word in place of the offers': { ...HELLO, offers: 'zstd' },
  'no list of offers': { ...HELLO, offers: false },
  'offers in a welcome': { kind: 'welcome', holds: false, channels: 0, offers: ['zstd'] },
  'what is taken in a hello': { ...HELLO, takes: ['zstd'] },
  'an empty list of what is taken': { kind: 'welcome', holds: false, channels: 0, takes: [] },
  'a compression taken twice': { kind: 'welcome', holds: false, channels: 0, takes: ['lz4', 'lz4'] },
  'a root of 31 bytes': { kind: 'verified', root: DIGEST.subarray(1) },
  'a root of 33 bytes': { kind: 'verified', root: Buffer.alloc(33) },
  'a root in hexadecimal': { kind: 'verified', root: DIGEST.toString('hex') },
  'a strategy that nobody knows': { ...END, summary: { ...SUMMARY, strategy: 'ranges' } },
  'a field that nobody knows in the summary': { ...END, summary: { ...SUMMARY, seconds: 1 } },
  'a map digest of 63 digits': { ...END, summary: { ...SUMMARY, mapDigest: '0'.repeat(63) } },
  'a map digest of 65 digits': { ...END, summary: { ...SUMMARY, mapDigest: '0'.repeat(65) } },
  'a map digest with a prefix': { ...END, summary: { ...SUMMARY, mapDigest: `0x${'0'.repeat(62)}` } },
  'a map digest with a letter beyond f': { ...END, summary: { ...SUMMARY, mapDigest: `${'0'.repeat(63)}g` } },
  'a map digest with a line end': { ...END, summary: { ...SUMMARY, mapDigest: `${'0'.repeat(63)}\n` } },
  'no leaves to send again': { kind: 'resend', leaves: [] },
  '1025 leaves to send again': { kind: 'resend', leaves: Array.from({ length: 1025 }, () => new Raw(0x92, 0, 0)) },
  'a leaf that is no pair': { kind: 'resend', leaves: [[1]] },
  'a leaf of three numbers': { kind: 'resend', leaves: [[1, 2, 3]] },
  'a leaf with a negative index': { kind: 'resend', leaves: [[0, -1]] },
  'a code of 1025 characters': { kind: 'refuse', code: 'x'.repeat(1025), message: '' },
  'a message of 1025 characters': { kind: 'abort', code: '', message: 'x'.repeat(1025) },
  'a message as long as a frame': { kind: 'abort', code: '', message: 'x'.repeat(65_000) },
  'a byte string for a message': { kind: 'abort', code: '', message: Buffer.from('x') },
};

for (const [what, message] of Object.entries(REFUSALS)) {
  test(`a message with ${what} is refused`, (t) => {
    const payload = pack(message);
    t.true(payload.length <= 65536);
    t.throws(() => decodeControl(payload), UNKNOWN);
  });
}

test('numbers that are no count of bytes are refused wherever one is expected', (t) => {
  for (const number of NO_COUNTS) {
    t.throws(() => decodeControl(pack({ ...HELLO, dataBytesAtMost: number })), UNKNOWN);
    t.throws(() => decodeControl(pack({ ...HELLO, regions: [number] })), UNKNOWN);
    t.throws(() => decodeControl(pack({ kind: 'resend', leaves: [[0, number]] })), UNKNOWN);
    for (const name of Object.keys(SUMMARY).filter((field) => !['strategy', 'mapDigest'].includes(field))) {
      t.throws(() => decodeControl(pack({ ...END, summary: { ...SUMMARY, [name]: number } })), UNKNOWN);
    }
  }
});

test('a message that is refused says which field, in few words, however long its name is', (t) => {
  t.throws(() => decodeControl(pack({ ...HELLO, regions: [4096, 5] })), {
    ...UNKNOWN,
    message: /\(field regions\.1\)$/,
  });
  const error = t.throws(() => decodeControl(pack({ kind: 'commit', ['x'.repeat(60_000)]: 1 })), UNKNOWN);
  t.true(error.message.length < 250);
});

/** What is MessagePack, or looks like it, and no part of a message; each would otherwise be a message. */
const NOT_MESSAGES: Readonly<Record<string, Buffer>> = {
  'no bytes': Buffer.alloc(0),
  nil: pack(null),
  'the token that MessagePack never uses': Buffer.of(0xc1),
  'that token inside a map': packMap([[pack('kind'), Buffer.of(0xc1)]]),
  'nil for a field': pack({ kind: 'commit', holds: null }),
  'a float 32': pack({ ...HELLO, dataBytesAtMost: new Raw(0xca, Buffer.of(0x45, 0x80, 0, 0)) }),
  'a number as a key': packMap([
    [pack('kind'), pack('commit')],
    [Buffer.of(1), Buffer.of(1)],
  ]),
  'a map as a key': packMap([[pack({}), pack('commit')]]),
  'bytes as a key': packMap([[pack(Buffer.from('kind')), pack('commit')]]),
  'the same key twice': packMap([
    [pack('kind'), pack('commit')],
    [pack('kind'), pack('heartbeat')],
  ]),
  'the same key twice, in two forms': packMap([
    [pack('kind'), pack('commit')],
    [Buffer.concat([Buffer.of(0xa4), Buffer.from('kind')]), pack('heartbeat')],
  ]),
  'the same key twice in the summary': pack({
    ...END,
    summary: new Raw(
      packMap([
        [pack('dataBytes'), pack(1)],
        [pack('dataBytes'), pack(2)],
      ]),
    ),
  }),
  'two messages': Buffer.concat([pack({ kind: 'commit' }), pack({ kind: 'commit' })]),
  'a list four levels deep': pack({ kind: 'resend', leaves: [[[0, 0]]] }),
};

for (const [what, payload] of Object.entries(NOT_MESSAGES)) {
  test(`a control frame with ${what} is refused`, (t) => {
    t.throws(() => decodeControl(payload), NOT_PLAIN);
  });
}

/** The value as extension `type`, in each form that MessagePack has for its size. */
function extensions(type: number, value: Buffer): Raw[] {
  const fixed = new Map([
    [1, 0xd4],
    [2, 0xd5],
    [4, 0xd6],
    [8, 0xd7],
    [16, 0xd8],
  ]).get(value.length);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(value.length);
  return [
    ...(fixed === undefined ? [] : [new Raw(fixed, type, value)]),
    new Raw(0xc7, length.subarray(3), type, value),
    new Raw(0xc8, length.subarray(2), type, value),
    new Raw(0xc9, length, type, value),
  ];
}

test('an extension type is refused, whichever it is, however it is written, and wherever it stands', (t) => {
  for (let type = 0; type < 256; type++) {
    for (const value of [1, 2, 4, 8, 16, 33].map((size) => Buffer.alloc(size, 1))) {
      for (const extension of extensions(type, value)) {
        t.throws(() => decodeControl(pack({ kind: 'verified', root: extension })), NOT_PLAIN);
        t.throws(() => decodeControl(extension.bytes), NOT_PLAIN);
      }
    }
  }
});

test('32 bytes as an extension for typed arrays are no root', (t) => {
  const typed = new Raw(0xc7, 33, 0x74, 1, DIGEST);
  t.throws(() => decodeControl(pack({ kind: 'verified', root: typed })), NOT_PLAIN);
});

test('a record, whose reader the library would compile, is refused', (t) => {
  const record = new Raw(0xd4, 0x72, 0x40, pack(['kind']), pack('commit'));
  t.throws(() => decodeControl(record.bytes), NOT_PLAIN);
});

test('a record that was refused is not known to the message after it', (t) => {
  t.throws(() => decodeControl(new Raw(0xd4, 0x72, 0x40, pack(['kind']), pack('commit')).bytes), NOT_PLAIN);
  t.throws(() => decodeControl(new Raw(0x40, pack('commit')).bytes), NOT_PLAIN);
  t.throws(() => decodeControl(Buffer.of(0x40)), UNKNOWN);
});

/** Lists of 15 references each to the list before: 15 to the power of `depth` values in a few hundred bytes. */
function billionLaughs(depth: number): Buffer {
  const lists: Raw[] = [new Raw(0xd6, 0x69, 0, 0, 0, 0, 0x91, 1)];
  for (let id = 1; id < depth; id++) {
    const references = Array.from({ length: 15 }, () => Buffer.of(0xd6, 0x70, 0, 0, 0, id - 1));
    lists.push(new Raw(0xd6, 0x69, 0, 0, 0, id, 0x9f, ...references));
  }
  return pack(lists);
}

/** What takes long, or much memory, from whoever believes it. */
const BOMBS: Readonly<Record<string, Buffer>> = {
  'references to references to references': billionLaughs(14),
  'references to references, and a byte behind': Buffer.concat([billionLaughs(14), Buffer.of(0)]),
  'a list in a list, 65536 times': Buffer.alloc(65536, 0x91),
  'fifteen lists in each list': Buffer.alloc(65536, 0x9f),
  'a map in a map, 21845 times': Buffer.concat(Array.from({ length: 21_845 }, () => Buffer.of(0x81, 0xa1, 0x61))),
  'a map whose keys are maps': Buffer.alloc(65536, 0x81),
  'sets in sets': Buffer.concat(Array.from({ length: 21_845 }, () => Buffer.of(0xd4, 0x73, 0))),
  'a list of 2^32 - 1': sized(0xdd, 2 ** 32 - 1, Buffer.alloc(60_000)),
  'lists of as many as there are bytes': Buffer.concat(Array.from({ length: 2000 }, () => sized(0xdd, 50_000))),
  'a map of 2^32 - 1': sized(0xdf, 2 ** 32 - 1, Buffer.alloc(60_000, 0xa0)),
  'a map of 20000 different keys': packMap(
    Array.from({ length: 20_000 }, (_, key) => [Buffer.of(0xa2, key & 255, key >> 8), Buffer.of(0)]),
  ),
  'a string of 2^32 - 1 bytes': sized(0xdb, 2 ** 32 - 1, Buffer.alloc(60_000, 0x61)),
  'bytes of 2^32 - 1': sized(0xc6, 2 ** 32 - 1, Buffer.alloc(60_000)),
  'an extension of 2^32 - 1 bytes': sized(0xc9, 2 ** 32 - 1, Buffer.alloc(60_000)),
  'a big integer of 65000 bytes': sized(0xc9, 65_000, Buffer.of(0x42), Buffer.alloc(65_000, 0x55)),
  'a regular expression that never ends': new Raw(0xd4, 0x78, 0, pack(['(a+)+$', ''])).bytes,
  '60000 regions that are no numbers': pack({
    ...HELLO,
    regions: new Raw(sized(0xdd, 60_000, Buffer.alloc(60_000, 0xc2))),
  }),
  '60000 regions of no bytes': pack({ ...HELLO, regions: new Raw(sized(0xdd, 60_000, Buffer.alloc(60_000))) }),
  '60000 leaves that are empty': pack({
    kind: 'resend',
    leaves: new Raw(sized(0xdd, 60_000, Buffer.alloc(60_000, 0x90))),
  }),
  '20000 leaves': pack({
    kind: 'resend',
    leaves: new Raw(sized(0xdd, 20_000, Buffer.concat(Array.from({ length: 20_000 }, () => Buffer.of(0x92, 1, 1))))),
  }),
};

for (const [what, payload] of Object.entries(BOMBS)) {
  test.serial(`in a moment and with little memory refused: ${what}`, (t) => {
    const before = process.memoryUsage();
    const started = performance.now();
    t.throws(() => decodeControl(payload), REFUSED);
    const took = performance.now() - started;
    const after = process.memoryUsage();
    t.true(took < 10_000, `took ${took} ms`);
    t.true(after.arrayBuffers - before.arrayBuffers < 16 << 20);
    t.true(after.heapUsed - before.heapUsed < 64 << 20);
  });
}

test('the longest texts and lists that are allowed fit a frame', (t) => {
  const text = '\u{ffff}'.repeat(1024);
  t.true(encodeControl({ kind: 'refuse', code: text, message: text }).length <= 65536);
  const leaves = Array.from({ length: 1024 }, (): [number, number] => [2 ** 53 - 1, 2 ** 53 - 1]);
  t.true(encodeControl({ kind: 'resend', leaves }).length <= 65536);
});

test('a message of ours that does not fit a frame is a defect of ours, and says so', (t) => {
  const leaves = Array.from({ length: 10_000 }, (): [number, number] => [2 ** 53 - 1, 2 ** 53 - 1]);
  t.throws(() => encodeControl({ kind: 'resend', leaves }), { code: ErrorCode.INTERNAL, message: /does not fit/ });
});

test('an encoded message stays as it is while others are encoded', (t) => {
  const first = encodeControl({ kind: 'abort', code: 'E_ABORTED', message: 'the first' });
  for (let i = 0; i < 2000; i++) encodeControl({ kind: 'abort', code: 'E_INTERNAL', message: `another ${i}` });
  t.deepEqual(decodeControl(first), { kind: 'abort', code: 'E_ABORTED', message: 'the first' });
});
