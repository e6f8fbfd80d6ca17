import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { RegionManifest, digestOf, emptyManifest, manifestRoot } from '@ballast/shared/integrity';
import { PAGE_SIZE, popCount } from '@ballast/shared/memory';

const REGION_BYTES = 2 ** 46;
const LAST_LEAF = REGION_BYTES / 65536 - 1;

interface Change {
  readonly leaf: number;
  /** 0 removes the leaf's entry. */
  readonly mask: number;
  readonly digest: Buffer;
}

/** Leaves near each other, so that they meet, and far apart, beyond 32 bits of bytes. */
const anyLeaf = fc.oneof(fc.nat(70), fc.nat(LAST_LEAF), fc.integer({ min: LAST_LEAF - 40, max: LAST_LEAF }));
const anyMask = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 0xffff }), fc.constant(0xffff));
const anyChange: fc.Arbitrary<Change> = fc
  .tuple(anyLeaf, anyMask, fc.uint8Array({ minLength: 32, maxLength: 32 }))
  .map(([leaf, mask, digest]) => ({ leaf, mask, digest: Buffer.from(digest) }));
const anyChanges = fc.array(anyChange, { maxLength: 60 });

function apply(changes: readonly Change[]): { manifest: RegionManifest; model: Map<number, Change> } {
  const manifest = new RegionManifest(REGION_BYTES);
  const model = new Map<number, Change>();
  for (const change of changes) {
    manifest.set(change.leaf, change.mask, change.digest);
    if (change.mask === 0) model.delete(change.leaf);
    else model.set(change.leaf, change);
  }
  return { manifest, model };
}

function entriesOf(manifest: RegionManifest): Change[] {
  return [...manifest].map(({ leaf, mask, digest }) => ({ leaf, mask, digest: Buffer.from(digest) }));
}

testProp('holds what a plain map would, in ascending order', [anyChanges], (t, changes) => {
  const { manifest, model } = apply(changes);
  const expected = [...model.values()].sort((a, b) => a.leaf - b.leaf);
  t.deepEqual(entriesOf(manifest), expected);
  t.is(manifest.entries, model.size);
  t.is(
    manifest.dataBytes,
    expected.reduce((sum, { mask }) => sum + popCount(mask) * PAGE_SIZE, 0),
  );
});

testProp('answers for each leaf as a plain map would', [anyChanges, anyLeaf], (t, changes, other) => {
  const { manifest, model } = apply(changes);
  for (const leaf of [other, ...changes.map((change) => change.leaf)]) {
    const expected = model.get(leaf);
    const entry = manifest.get(leaf);
    t.is(manifest.mask(leaf), expected?.mask ?? 0);
    t.deepEqual(entry && { leaf, mask: entry.mask, digest: Buffer.from(entry.digest) }, expected);
  }
});

testProp(
  'matches an entry only where mask and digest are both the same',
  [anyChanges, anyChange],
  (t, changes, change) => {
    fc.pre(change.mask !== 0);
    const { manifest } = apply([...changes, change]);
    const otherDigest = Buffer.from(change.digest);
    otherDigest[31] = (otherDigest[31] ?? 0) ^ 1;
    t.true(manifest.matches(change.leaf, change.mask, change.digest));
    t.false(manifest.matches(change.leaf, change.mask ^ 0x8000, change.digest));
    t.false(manifest.matches(change.leaf, change.mask, otherDigest));
    manifest.set(change.leaf, 0, change.digest);
    t.false(manifest.matches(change.leaf, change.mask, change.digest));
  },
);

testProp(
  'the root does not depend on the order in which leaves were set',
  [
    anyChanges.chain((changes) => {
      const once = [...new Map(changes.map((change) => [change.leaf, change])).values()];
      return fc.tuple(fc.constant(once), fc.shuffledSubarray(once, { minLength: once.length }));
    }),
  ],
  (t, [changes, shuffled]) => {
    t.deepEqual(manifestRoot([apply(shuffled).manifest]), manifestRoot([apply(changes).manifest]));
  },
);

testProp('leaves that were set and removed leave no trace in the root', [anyChanges], (t, changes) => {
  const { manifest, model } = apply(changes);
  const direct = apply([...model.values()]).manifest;
  t.deepEqual(manifestRoot([manifest]), manifestRoot([direct]));
});

testProp('roots are equal only for the same entries', [anyChanges, anyChanges], (t, some, others) => {
  const [a, b] = [apply(some).manifest, apply(others).manifest];
  const same = Buffer.compare(manifestRoot([a]), manifestRoot([b])) === 0;
  const isSame = JSON.stringify(entriesOf(a)) === JSON.stringify(entriesOf(b));
  t.is(same, isSame);
});

test('the digest is copied: the caller may use its buffer again', (t) => {
  const manifest = new RegionManifest(REGION_BYTES);
  const digest = digestOf(Buffer.from('leaf'));
  const kept = Buffer.from(digest);
  manifest.set(3, 1, digest);
  digest.fill(0);
  t.true(manifest.matches(3, 1, kept));
});

test('entries in more than a slab of blocks, first used in descending order, stay apart', (t) => {
  const manifest = new RegionManifest(REGION_BYTES);
  const leafOf = (n: number): number => n * 32 + (n % 32);
  for (let n = 1500; n >= 0; n--) manifest.set(leafOf(n), (n % 0xffff) + 1, digestOf(Buffer.from(String(n))));
  t.is(manifest.entries, 1501);
  let n = 0;
  for (const { leaf, mask, digest } of manifest) {
    const isRight = leaf === leafOf(n) && mask === n + 1 && digestOf(Buffer.from(String(n))).equals(digest);
    if (!isRight) t.fail(`entry ${n} is at leaf ${leaf} with mask ${mask}`);
    n++;
  }
  t.is(n, 1501);
});

test('removing a leaf that was never set changes nothing', (t) => {
  const manifest = new RegionManifest(REGION_BYTES);
  manifest.set(12345, 0, Buffer.alloc(32));
  t.is(manifest.entries, 0);
  t.is(manifest.dataBytes, 0);
  t.deepEqual([...manifest], []);
});

test('the root depends on the number and the sizes of the regions, and on which region an entry is in', (t) => {
  const withEntry = (sizes: readonly number[], region: number): string => {
    const manifest = emptyManifest(sizes);
    manifest[region]?.set(0, 1, digestOf(Buffer.alloc(PAGE_SIZE, 1)));
    return manifestRoot(manifest).toString('hex');
  };
  const roots = [
    withEntry([65536], 0),
    withEntry([131072], 0),
    withEntry([65536, 65536], 0),
    withEntry([65536, 65536], 1),
    withEntry([65536, 131072], 1),
    withEntry([131072, 65536], 1),
  ];
  t.is(new Set(roots).size, roots.length);
});

test('the root of many entries is the digest of their bytes, however they are batched', (t) => {
  for (const count of [1023, 1024, 1025, 2048]) {
    const manifest = new RegionManifest(REGION_BYTES);
    const head = Buffer.alloc(40);
    head.write('ballast-manifest', 'latin1');
    [1, 4096, 65536, 1].forEach((value, index) => head.writeUInt32LE(value, 16 + 4 * index));
    head.writeBigUInt64LE(BigInt(REGION_BYTES), 32);
    const parts: Buffer[] = [head];
    for (let n = 0; n < count; n++) {
      const digest = digestOf(Buffer.from(String(n)));
      manifest.set(n * 3, 0x8001, digest);
      const entry = Buffer.alloc(14);
      entry.writeBigUInt64LE(BigInt(n * 3), 4);
      entry.writeUInt16LE(0x8001, 12);
      parts.push(entry, digest);
    }
    t.deepEqual(manifestRoot([manifest]), digestOf(Buffer.concat(parts)));
  }
});
