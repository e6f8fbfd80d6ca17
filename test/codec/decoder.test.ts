import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import {
  FrameDecoder,
  FrameType,
  HEADER_SIZE,
  PREAMBLE,
  encodeControl,
  type FrameHeader,
} from '@ballast/shared/protocol';
import { addressOf } from '@ballast/shared/memory';
import { naiveFrame, writeNaiveHeader, type NaiveHeader } from './naive.js';

/** A frame that nobody recycles: its payload is a copy. */
interface Kept {
  readonly header: FrameHeader;
  readonly payload: Buffer;
}

/** Gives a chunk to a decoder and every frame that it completes to `keep`. */
type Feed = (decoder: FrameDecoder, chunk: Buffer, keep: (frame: Kept) => void) => void;

/** Keeps all frames that are ready, and recycles them. */
function take(decoder: FrameDecoder, keep: (frame: Kept) => void): void {
  for (let frame = decoder.shift(); frame !== undefined; frame = decoder.shift()) {
    keep({ header: frame.header, payload: Buffer.from(frame.payload) });
    decoder.recycle(frame);
  }
}

/** By `push`, again and again for as long as not all was taken. */
const pushed: Feed = (decoder, chunk, keep) => {
  for (let taken = 0; taken < chunk.length;) {
    taken += decoder.push(chunk.subarray(taken));
    take(decoder, keep);
  }
};

/** By `target` and `advance`, as a kernel fills memory that it was given: never beyond its end. */
const written: Feed = (decoder, chunk, keep) => {
  for (let at = 0; at < chunk.length;) {
    const count = chunk.copy(decoder.target(), 0, at);
    decoder.advance(count);
    at += count;
    take(decoder, keep);
  }
};

const FEEDS = { push: pushed, 'target and advance': written };

/** The frames of these chunks, and the error that ended them if there was one. */
function decode(chunks: readonly Buffer[], feed: Feed = pushed): { frames: Kept[]; error?: BallastError } {
  const decoder = new FrameDecoder();
  const frames: Kept[] = [];
  const keep = (frame: Kept): void => {
    frames.push(frame);
  };
  try {
    for (const chunk of chunks) feed(decoder, chunk, keep);
  } catch (error) {
    if (!(error instanceof BallastError)) throw error;
    take(decoder, keep);
    return { frames, error };
  }
  return { frames };
}

function filled(length: number, first: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, index) => (first + 7 * index) & 255));
}

/** One frame of each type, two of them without a payload; page bytes only of a leaves frame are not checked. */
const PARTS: readonly { readonly fields: Partial<NaiveHeader> & { type: number }; checked: Buffer; pages: Buffer }[] = [
  { fields: { type: FrameType.control }, checked: encodeControl({ kind: 'commit' }), pages: Buffer.alloc(0) },
  {
    fields: { type: FrameType.freeRanges, count: 0, base: 2n ** 40n },
    checked: Buffer.alloc(0),
    pages: Buffer.alloc(0),
  },
  { fields: { type: FrameType.leaves, region: 1, count: 2, base: 3n }, checked: filled(96, 1), pages: filled(50, 2) },
  { fields: { type: FrameType.whiteouts, count: 3 }, checked: filled(27, 3), pages: Buffer.alloc(0) },
  { fields: { type: FrameType.control }, checked: Buffer.alloc(0), pages: Buffer.alloc(0) },
  { fields: { type: FrameType.zeroRanges, count: 1, base: 2n ** 33n }, checked: filled(2, 4), pages: Buffer.alloc(0) },
  { fields: { type: FrameType.holdings, region: 9, count: 1 }, checked: filled(48, 5), pages: Buffer.alloc(0) },
  { fields: { type: FrameType.leaves, region: 1, count: 1, base: 9n }, checked: filled(48, 6), pages: filled(9, 7) },
  { fields: { type: FrameType.filler }, checked: Buffer.alloc(0), pages: filled(70, 8) },
];

function framesOf(parts: typeof PARTS): Buffer[] {
  return parts.map(({ fields, checked, pages }, sequence) => naiveFrame({ sequence, ...fields }, checked, pages));
}

const FRAMES = framesOf(PARTS);
const STREAM = Buffer.concat([PREAMBLE, ...FRAMES]);
const EXPECTED = PARTS.map(({ checked, pages }) => Buffer.concat([checked, pages]));

function payloadsOf(frames: readonly Kept[]): Buffer[] {
  return frames.map(({ payload }) => payload);
}

/** Where the bytes lie that only a leaf's digest covers. */
function isPageByte(at: number): boolean {
  let start = PREAMBLE.length;
  for (const [index, frame] of FRAMES.entries()) {
    const end = start + frame.length;
    if (at >= end - (PARTS[index]?.pages.length ?? 0) && at < end) return true;
    start = end;
  }
  return false;
}

/** The stream with one byte changed. */
function damaged(stream: Buffer, at: number, change: number): Buffer {
  const copy = Buffer.from(stream);
  copy[at] = (copy[at] ?? 0) ^ change;
  return copy;
}

for (const [name, feed] of Object.entries(FEEDS)) {
  test(`by ${name}: a stream in one piece becomes its frames`, (t) => {
    const { frames, error } = decode([STREAM], feed);
    t.is(error, undefined);
    t.deepEqual(payloadsOf(frames), EXPECTED);
    t.deepEqual(
      frames.map(({ header }) => [header.type, header.region, header.sequence, header.count, BigInt(header.base)]),
      PARTS.map(({ fields }, sequence) => [
        fields.type,
        fields.region ?? 0,
        sequence,
        fields.count ?? 0,
        fields.base ?? 0n,
      ]),
    );
  });

  test(`by ${name}: a stream cut in two at any place becomes the same frames`, (t) => {
    for (let cut = 0; cut <= STREAM.length; cut++) {
      const { frames, error } = decode([STREAM.subarray(0, cut), STREAM.subarray(cut)], feed);
      t.is(error, undefined);
      t.deepEqual(payloadsOf(frames), EXPECTED, `cut at ${cut}`);
    }
  });

  test(`by ${name}: a stream that comes byte by byte becomes the same frames`, (t) => {
    const bytes = Array.from(STREAM, (byte) => Buffer.of(byte));
    t.deepEqual(payloadsOf(decode(bytes, feed).frames), EXPECTED);
  });

  testProp(
    `by ${name}: a stream in pieces of any size becomes the same frames`,
    [fc.array(fc.integer({ min: 1, max: 120 }), { minLength: 1, maxLength: STREAM.length })],
    (t, sizes) => {
      const chunks: Buffer[] = [];
      let at = 0;
      for (const size of sizes) chunks.push(STREAM.subarray(at, (at += size)));
      chunks.push(STREAM.subarray(at));
      t.deepEqual(payloadsOf(decode(chunks, feed).frames), EXPECTED);
    },
  );

  test(`by ${name}: a stream that stops anywhere gives the frames that were whole, and no error`, (t) => {
    const ends = FRAMES.map((_, index) => PREAMBLE.length + Buffer.concat(FRAMES.slice(0, index + 1)).length);
    for (let stop = 0; stop < STREAM.length; stop++) {
      const { frames, error } = decode([STREAM.subarray(0, stop)], feed);
      t.is(error, undefined);
      t.is(frames.length, ends.filter((end) => end <= stop).length, `stopped at ${stop}`);
    }
  });

  test(`by ${name}: one flipped bit of a header or of what its checksum covers is damage`, (t) => {
    for (let at = PREAMBLE.length; at < STREAM.length; at++) {
      if (isPageByte(at)) continue;
      for (let bit = 0; bit < 8; bit++) {
        const { error } = decode([damaged(STREAM, at, 1 << bit)], feed);
        t.is(error?.code, ErrorCode.CORRUPT_STREAM, `bit ${bit} of byte ${at}`);
      }
    }
  });

  test(`by ${name}: one flipped bit of the preamble is another protocol or another version`, (t) => {
    for (let at = 0; at < PREAMBLE.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const { frames, error } = decode([damaged(STREAM, at, 1 << bit)], feed);
        t.is(error?.code, ErrorCode.VERSION, `bit ${bit} of byte ${at}`);
        t.is(frames.length, 0);
      }
    }
  });
}

test('a flipped bit of page bytes is for the digest of the leaf to find', (t) => {
  for (let at = 0; at < STREAM.length; at++) {
    if (!isPageByte(at)) continue;
    const { frames, error } = decode([damaged(STREAM, at, 1)]);
    t.is(error, undefined);
    t.is(frames.length, FRAMES.length);
  }
});

testProp(
  'a stream with any bytes changed gives frames as they were sent, and then only documented errors',
  [fc.array(fc.tuple(fc.nat(STREAM.length - 1), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 20 })],
  (t, changes) => {
    const bytes = changes
      .filter(([at]) => !isPageByte(at))
      .reduce<Buffer>((stream, [at, change]) => damaged(stream, at, change), STREAM);
    const { frames, error } = decode([bytes]);
    t.deepEqual(payloadsOf(frames), EXPECTED.slice(0, frames.length));
    if (error === undefined) t.is(frames.length, EXPECTED.length);
    else
      t.true(
        ([ErrorCode.CORRUPT_STREAM, ErrorCode.VERSION, ErrorCode.TLS] as string[]).includes(error.code),
        error.code,
      );
  },
);

testProp(
  'whatever comes after the preamble, there are frames or a documented error',
  [fc.uint8Array({ maxLength: 300 }), fc.boolean()],
  (t, bytes, hasPreamble) => {
    const { error } = decode(hasPreamble ? [PREAMBLE, Buffer.from(bytes)] : [Buffer.from(bytes)]);
    const { CORRUPT_STREAM, PROTOCOL, VERSION, TLS } = ErrorCode;
    const documented: (string | undefined)[] = [undefined, CORRUPT_STREAM, PROTOCOL, VERSION, TLS];
    t.true(documented.includes(error?.code));
  },
);

for (const { what, frames } of [
  { what: 'lost', frames: FRAMES.filter((_, index) => index !== 3) },
  { what: 'repeated', frames: [...FRAMES.slice(0, 4), ...FRAMES.slice(3)] },
  { what: 'put before the one it follows', frames: [...FRAMES.slice(0, 2), ...FRAMES.slice(2, 4).reverse()] },
  { what: 'sent as the first of a connection again', frames: [...FRAMES.slice(0, 3), ...FRAMES.slice(0, 1)] },
]) {
  test(`a frame that was ${what} means that the stream is damaged`, (t) => {
    const { error } = decode([PREAMBLE, ...frames]);
    t.is(error?.code, ErrorCode.CORRUPT_STREAM);
    t.regex(error?.message ?? '', /frame \d was expected and frame \d came/);
  });
}

for (const [name, type] of Object.entries(FrameType)) {
  test(`a ${name} frame that is too long is refused before a byte of it, or memory for it, is taken`, (t) => {
    const fields = { flags: 0, region: 0, sequence: 0, count: 0, base: 0n, payloadChecksum: 0 };
    const header = Buffer.from(writeNaiveHeader({ ...fields, type, length: 2 ** 31 }));
    const decoder = new FrameDecoder();
    decoder.push(PREAMBLE);
    const before = process.memoryUsage().arrayBuffers;
    t.throws(() => decoder.push(Buffer.concat([header, Buffer.alloc(64)])), {
      instanceOf: BallastError,
      code: ErrorCode.PROTOCOL,
      message: /2147483648 bytes; at most/,
    });
    t.true(process.memoryUsage().arrayBuffers - before < 100_000);
    t.is(decoder.shift(), undefined);
  });
}

for (const { who, bytes, name } of [
  { who: 'a browser', bytes: 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n', name: /HTTP/ },
  { who: 'a form', bytes: 'POST /submit HTTP/1.1\r\n', name: /HTTP/ },
  { who: 'a health check', bytes: 'HEAD / HTTP/1.0\r\n', name: /HTTP/ },
  { who: 'an upload', bytes: 'PUT /file HTTP/1.1\r\n', name: /HTTP/ },
  { who: 'a preflight', bytes: 'OPTIONS * HTTP/1.1\r\n', name: /HTTP/ },
  { who: 'a proxy', bytes: 'CONNECT host:443 HTTP/1.1\r\n', name: /HTTP/ },
  { who: 'a web server', bytes: 'HTTP/1.1 400 Bad Request\r\n', name: /HTTP/ },
  { who: 'a TLS client', bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', name: /TLS; give both sides the same/ },
  { who: 'a TLS alert', bytes: '\x15\x03\x03\x00\x02\x02\x28\x00', name: /TLS/ },
  { who: 'an SSH server', bytes: 'SSH-2.0-OpenSSH_9.2p1\r\n', name: /SSH/ },
  { who: 'an NBD server', bytes: 'NBDMAGICIHAVEOPT', name: /NBD/ },
  { who: 'noise', bytes: '\x00\xff\x10abcdefg', name: /it began with 00ff106162636465/ },
  { who: 'a near miss', bytes: 'BALLOON\x01', name: /it began with 42414c4c4f4f4e01/ },
]) {
  test(`a stranger is named: ${who}`, (t) => {
    const { error, frames } = decode([Buffer.from(bytes, 'latin1')]);
    t.is(error?.code, /TLS/.test(name.source) ? ErrorCode.TLS : ErrorCode.VERSION);
    t.regex(error?.message ?? '', name);
    t.is(frames.length, 0);
  });
}

test('a stranger is refused at its first byte', (t) => {
  t.is(decode([Buffer.from('S')]).error?.code, ErrorCode.VERSION);
});

test('a peer of another version is told which versions meet', (t) => {
  const { error } = decode([Buffer.from('BALLAST\x02', 'latin1')]);
  t.is(error?.code, ErrorCode.VERSION);
  t.regex(error?.message ?? '', /version 2 of the protocol and this side version 1/);
});

/** Whiteouts frames, one byte each: bulk frames, so each takes a payload buffer. */
function bulkFrames(count: number): Buffer {
  const frames = Array.from({ length: count }, (_, sequence) =>
    naiveFrame({ type: FrameType.whiteouts, sequence }, Buffer.of(sequence & 255)),
  );
  return Buffer.concat([PREAMBLE, ...frames]);
}

test('no more than two payloads are out at a time, and the third waits until one is given back', (t) => {
  const decoder = new FrameDecoder();
  const stream = bulkFrames(3);
  const taken = decoder.push(stream);
  t.is(taken, PREAMBLE.length + 2 * (HEADER_SIZE + 1));
  t.false(decoder.canTake);
  t.is(decoder.push(stream.subarray(taken)), 0);

  const first = decoder.shift();
  const second = decoder.shift();
  t.is(decoder.shift(), undefined);
  t.false(decoder.canTake);
  if (first === undefined || second === undefined) throw new Error('two frames should have been ready');
  decoder.recycle(first);
  t.true(decoder.canTake);
  t.is(decoder.push(stream.subarray(taken)), HEADER_SIZE + 1);
  t.false(decoder.canTake);
  t.deepEqual(decoder.shift()?.payload, Buffer.of(2));
  t.deepEqual(second.payload, Buffer.of(1));
});

test('where the next bytes belong stays right while the decoder waits', (t) => {
  const decoder = new FrameDecoder();
  const stream = bulkFrames(3);
  const taken = decoder.push(stream);
  const place = decoder.target();
  t.is(place.length, HEADER_SIZE);
  const first = decoder.shift();
  if (first === undefined) throw new Error('a frame should have been ready');
  decoder.recycle(first);
  // A read that was under way writes to the place that was given before.
  stream.copy(place, 0, taken);
  decoder.advance(HEADER_SIZE);
  stream.copy(decoder.target(), 0, taken + HEADER_SIZE);
  decoder.advance(1);
  decoder.shift();
  t.deepEqual(decoder.shift()?.payload, Buffer.of(2));
});

test('a thousand frames go through the same two buffers', (t) => {
  const decoder = new FrameDecoder();
  const memories = new Set<ArrayBufferLike>();
  const stream = bulkFrames(1000);
  let count = 0;
  for (let taken = 0; taken < stream.length;) {
    taken += decoder.push(stream.subarray(taken, taken + 100));
    for (let frame = decoder.shift(); frame !== undefined; frame = decoder.shift()) {
      t.is(frame.payload[0], count++ & 255);
      memories.add(frame.payload.buffer);
      decoder.recycle(frame);
    }
  }
  t.is(count, 1000);
  t.true(memories.size <= 2);
});

test('recycling a control frame, whose memory is its own, makes no room for bulk frames', (t) => {
  const decoder = new FrameDecoder();
  const control = naiveFrame({ type: FrameType.control }, encodeControl({ kind: 'commit' }));
  const bulk = [1, 2, 3].map((sequence) => naiveFrame({ type: FrameType.whiteouts, sequence }, Buffer.of(sequence)));
  decoder.push(Buffer.concat([PREAMBLE, control, ...bulk]));
  const first = decoder.shift();
  t.is(first?.header.type, FrameType.control);
  t.false(decoder.canTake);
  if (first !== undefined) decoder.recycle(first);
  t.false(decoder.canTake);
});

test('a large payload is written where it stays', (t) => {
  const decoder = new FrameDecoder();
  const table = filled(48, 1);
  const pages = Buffer.alloc(65536, 0xab);
  const frame = naiveFrame({ type: FrameType.leaves, count: 1 }, table, pages);
  decoder.push(Buffer.concat([PREAMBLE, frame.subarray(0, HEADER_SIZE)]));
  const place = decoder.target();
  t.is(place.length, frame.length - HEADER_SIZE);
  frame.copy(place, 0, HEADER_SIZE);
  decoder.advance(place.length);
  const { payload } = decoder.shift() ?? {};
  t.is(payload?.buffer, place.buffer);
  t.is(payload?.byteOffset, place.byteOffset);
  t.deepEqual(payload, frame.subarray(HEADER_SIZE));
});

test('the pages of a leaves frame, however long its table, begin on a cache line', (t) => {
  const decoder = new FrameDecoder();
  decoder.push(PREAMBLE);
  for (let count = 1; count <= 16; count++) {
    const table = filled(48 * count, count);
    const pages = filled(4096, 100 + count);
    decoder.push(naiveFrame({ type: FrameType.leaves, sequence: count - 1, count }, table, pages));
    const frame = decoder.shift();
    if (frame === undefined) throw new Error('a frame should have been ready');
    t.deepEqual(frame.payload, Buffer.concat([table, pages]));
    t.is(addressOf(frame.payload.subarray(table.length)) % 64, 0, `after ${count} records`);
    decoder.recycle(frame);
  }
});
