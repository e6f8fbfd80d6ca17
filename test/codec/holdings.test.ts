import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { FrameType, HoldingsEncoder, decodeHoldings, type FrameHeader, type HeldLeaf } from '@ballast/shared/protocol';
import { aDigest, aMask, ascendingLeaves } from './arbitraries.js';
import { naivePopCount, writeNaiveHeldLeaf } from './naive.js';

const LARGEST_REGION = 2 ** 46;
const DIGEST = Buffer.alloc(32, 0x5a);

const someHeldLeaves: fc.Arbitrary<HeldLeaf[]> = fc
  .tuple(ascendingLeaves, fc.array(fc.tuple(aMask, aDigest, fc.nat(255)), { minLength: 20 }))
  .map(([leaves, contents]) =>
    leaves.flatMap((leaf, index) => {
      const content = contents[index];
      if (content === undefined) return [];
      const [mask, digest, fill] = content;
      return [{ leaf, mask, digest, hints: Buffer.alloc(8 * naivePopCount(mask), fill) }];
    }),
  )
  .map((leaves) => leaves.filter(({ leaf }) => leaf - (leaves[0]?.leaf ?? 0) < 2 ** 32));

function headerOf(count: number, base: number): FrameHeader {
  return { type: FrameType.holdings, region: 0, sequence: 0, length: 0, count, base, payloadChecksum: 0 };
}

function naivePayload(base: number, held: readonly HeldLeaf[]): Buffer {
  return Buffer.concat(held.map((leaf) => writeNaiveHeldLeaf(BigInt(base), { ...leaf, leaf: BigInt(leaf.leaf) })));
}

testProp('held leaves come back as they were', [someHeldLeaves], (t, held) => {
  const encoder = new HoldingsEncoder();
  for (const leaf of held) encoder.add(leaf);
  const header = headerOf(encoder.count, encoder.base);
  t.deepEqual(decodeHoldings(header, encoder.take(), LARGEST_REGION), held);
});

testProp('the fast encoder writes the bytes that the naive encoder writes', [someHeldLeaves], (t, held) => {
  const encoder = new HoldingsEncoder();
  for (const leaf of held) encoder.add(leaf);
  t.deepEqual(encoder.take(), naivePayload(held[0]?.leaf ?? 0, held));
});

testProp(
  'whatever bytes come, leaves of the region are returned or the peer is blamed',
  [fc.uint8Array({ maxLength: 300 }), fc.nat(5), fc.nat(20), fc.integer({ min: 1, max: 200 })],
  (t, payload, count, base, pages) => {
    try {
      decodeHoldings(headerOf(count, base), Buffer.from(payload), pages * 4096);
      t.pass();
    } catch (error) {
      t.true(error instanceof BallastError);
      t.is(BallastError.from(error).code, ErrorCode.PROTOCOL);
    }
  },
);

test('what was decoded stays when the memory of its frame is used again', (t) => {
  const held = { leaf: 0, mask: 1, digest: DIGEST, hints: Buffer.alloc(8, 7) };
  const payload = naivePayload(0, [held]);
  const decoded = decodeHoldings(headerOf(1, 0), payload, LARGEST_REGION);
  payload.fill(0xff);
  t.deepEqual(decoded, [held]);
});

test('an encoder that says it has room takes a leaf with all its hints and stays within the limit', (t) => {
  const encoder = new HoldingsEncoder();
  for (let leaf = 0; encoder.hasRoom; leaf++) {
    encoder.add({ leaf, mask: 0xffff, digest: DIGEST, hints: Buffer.alloc(128) });
  }
  t.is(encoder.count, Math.floor(65536 / 168));
  t.true(encoder.take().length <= 65536);
});

test('a frame without leaves says how far the telling has come, up to the end of the region', (t) => {
  t.deepEqual(decodeHoldings(headerOf(0, 3), Buffer.alloc(0), 3 * 65536), []);
  t.throws(() => decodeHoldings(headerOf(0, 4), Buffer.alloc(0), 3 * 65536), {
    instanceOf: BallastError,
    code: ErrorCode.PROTOCOL,
    message: /begin beyond the region/,
  });
});

interface Lie {
  readonly what: string;
  readonly held?: readonly Partial<HeldLeaf>[];
  readonly count?: number;
  readonly spoil?: (payload: Buffer) => Buffer;
  readonly regionBytes?: number;
  readonly message: RegExp;
}

const LIES: readonly Lie[] = [
  { what: 'no bytes for a leaf', held: [], count: 1, message: /end inside a leaf/ },
  { what: '2^32 - 1 leaves in one', count: 2 ** 32 - 1, message: /end inside a leaf/ },
  { what: 'half a record', spoil: (payload) => payload.subarray(0, 39), message: /end inside a leaf/ },
  { what: 'hints that end early', spoil: (payload) => payload.subarray(0, -1), message: /end inside the hints/ },
  { what: 'a mask of more pages than hints', held: [{ mask: 3 }], message: /end inside the hints/ },
  { what: 'a mask of fewer pages than hints', held: [{ hints: Buffer.alloc(16) }], message: /after the last leaf/ },
  { what: 'bytes where no leaf was announced', count: 0, message: /after the last leaf/ },
  { what: 'the same leaf twice', held: [{ leaf: 4 }, { leaf: 4 }], message: /do not ascend/ },
  { what: 'leaves that descend', held: [{ leaf: 4 }, { leaf: 3 }], message: /do not ascend/ },
  { what: 'a leaf without pages', held: [{ mask: 0, hints: Buffer.alloc(0) }], message: /beyond the region, or none/ },
  { what: 'a leaf beyond the region', held: [{ leaf: 9 }], regionBytes: 9 * 65536, message: /beyond the region/ },
  {
    what: 'a page beyond the region',
    held: [{ leaf: 1, mask: 2 }],
    regionBytes: 65536 + 4096,
    message: /beyond the region/,
  },
  {
    what: 'a field that must be 0',
    spoil(payload) {
      payload[7] = 1;
      return payload;
    },
    message: /must be zero/,
  },
];

for (const { what, held = [{}], count, spoil, regionBytes = LARGEST_REGION, message } of LIES) {
  test(`${what}: refused`, (t) => {
    const whole = held.map((leaf) => ({ leaf: 0, mask: 1, digest: DIGEST, hints: Buffer.alloc(8), ...leaf }));
    const fitting = naivePayload(0, whole);
    const payload = spoil?.(fitting) ?? fitting;
    t.throws(() => decodeHoldings(headerOf(count ?? whole.length, 0), payload, regionBytes), {
      instanceOf: BallastError,
      code: ErrorCode.PROTOCOL,
      message,
    });
  });
}
