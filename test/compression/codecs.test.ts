import { randomBytes } from 'node:crypto';
import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { Compression, codecOf, isAvailable, type Codec } from '@ballast/shared/compression';

const PAGE = 4096;
const CODECS = Object.values(Compression).flatMap((name) => {
  const codec = codecOf(name);
  return codec === undefined ? [] : [{ name, codec }];
});

/** A leaf's pages: some are text, some random, some all the same. */
const somePages: fc.Arbitrary<Buffer> = fc
  .array(fc.oneof(fc.constant('random' as const), fc.string({ minLength: 1, maxLength: 40 })), {
    minLength: 1,
    maxLength: 16,
  })
  .map((fills) =>
    Buffer.concat(fills.map((fill) => (fill === 'random' ? randomBytes(PAGE) : Buffer.alloc(PAGE, fill)))),
  );

/** What a codec makes of bytes from a peer: nothing, or exactly as many bytes as were asked for. */
function restores(codec: Codec, stored: Buffer, length: number): boolean {
  const restored = codec.restore(stored, length);
  if (restored !== undefined && restored.length !== length) throw new Error(`${restored.length} bytes for ${length}`);
  return restored !== undefined;
}

test('lz4 is there on every Node.js, and zstd from 22.15 on', (t) => {
  t.true(isAvailable('none'));
  t.true(isAvailable('lz4'));
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  t.is(isAvailable('zstd'), major > 22 || (major === 22 && minor >= 15));
});

for (const { name, codec } of CODECS) {
  testProp(`${name}: what was compressed is restored`, [somePages], (t, pages) => {
    t.deepEqual(codec.restore(codec.compress(pages), pages.length), pages);
  });

  test(`${name}: bytes that lie about their length restore to nothing`, (t) => {
    const stored = codec.compress(Buffer.alloc(4 * PAGE, 'what the guest remembers'));
    for (const length of [0, 1, PAGE, 3 * PAGE, 4 * PAGE - 1, 4 * PAGE + 1, 5 * PAGE, 16 * PAGE])
      t.false(restores(codec, stored, length), String(length));
  });

  test(`${name}: bytes that were cut off, or are followed by others, restore to nothing`, (t) => {
    for (const pages of [Buffer.alloc(PAGE, 'abc'), Buffer.concat([randomBytes(PAGE), Buffer.alloc(PAGE, 'text ')])]) {
      const stored = codec.compress(pages);
      for (let end = 0; end < stored.length; end++) {
        if (restores(codec, stored.subarray(0, end), pages.length)) t.fail(`${end} of ${stored.length} bytes`);
      }
      for (const tail of [Buffer.from([0]), Buffer.from('xx'), stored, Buffer.alloc(PAGE)])
        t.false(restores(codec, Buffer.concat([stored, tail]), pages.length));
    }
  });

  testProp(
    `${name}: whatever bytes come, they restore to the length that was asked for or to nothing`,
    [fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 16 })],
    (t, bytes, pages) => {
      restores(codec, Buffer.from(bytes), pages * PAGE);
      t.pass();
    },
  );

  testProp(
    `${name}: so do bytes of which some were changed`,
    [somePages, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 })],
    (t, pages, changes) => {
      const stored = Buffer.from(codec.compress(pages));
      for (const [at, byte] of changes) stored[at % stored.length] = byte;
      restores(codec, stored, pages.length);
      t.pass();
    },
  );
}

/** A page of which each byte is 'A', as it goes over the wire. */
const GOLDEN = {
  // The length, a literal, a match at distance 1 of 4 + 15 + 15 x 255 + 241 bytes, and the last 10 literals.
  lz4: `00100000 1f 41 0100 ${'ff'.repeat(15)} f1 a0 ${'41'.repeat(10)}`,
  // Magic, descriptor, 4096 - 256; the last block, run-length, of 4096 bytes.
  zstd: '28b52ffd 60 000f 038000 41',
};

for (const { name, codec } of CODECS) {
  if (name === 'none') continue;
  test(`${name}: these bytes are a page`, (t) => {
    const page = Buffer.alloc(PAGE, 'A');
    t.deepEqual(codec.restore(Buffer.from(GOLDEN[name].replaceAll(' ', ''), 'hex'), PAGE), page);
  });
}

test('lz4: 272 bytes that claim to be 4 GiB are turned away before anything is allocated for them', (t) => {
  const codec = codecOf('lz4');
  const forged = Buffer.alloc(272, 0xff);
  const before = process.memoryUsage();
  t.is(codec?.restore(forged, 16 * PAGE), undefined);
  const after = process.memoryUsage();
  t.true(after.rss - before.rss < 64 << 20 && after.external - before.external < 64 << 20);
});

const zstd = codecOf('zstd');
(zstd === undefined ? test.skip : test)('zstd: frames of other kinds than ours restore to nothing', (t) => {
  const page = Buffer.alloc(PAGE, 'A');
  const ours = zstd?.compress(page) ?? Buffer.alloc(0);
  const blocks = ours.subarray(7);
  const frames: Record<string, Buffer> = {
    'a window of 128 MiB instead of a content size': Buffer.concat([Buffer.from('28b52ffd0088', 'hex'), blocks]),
    'a content size of 8 bytes': Buffer.concat([Buffer.from('28b52ffde00010000000000000', 'hex'), blocks]),
    'a content checksum': Buffer.concat([Buffer.from('28b52ffd64000f', 'hex'), blocks, Buffer.alloc(4)]),
    'a dictionary': Buffer.concat([Buffer.from('28b52ffd6101000f', 'hex'), blocks]),
    'a skippable frame ahead': Buffer.concat([Buffer.from('502a4d1800000000', 'hex'), ours]),
    'a block that holds more than the frame says': Buffer.from('28b52ffd60000f' + '030008' + '41', 'hex'),
    'two frames': Buffer.concat([ours, ours]),
  };
  t.deepEqual(zstd?.restore(ours, PAGE), page);
  for (const [name, frame] of Object.entries(frames)) t.is(zstd?.restore(frame, PAGE), undefined, name);
});
