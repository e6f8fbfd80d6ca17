import test from 'ava';
import type { Codec } from '@ballast/shared/compression';
import { AutoCompression } from '@ballast/sender/auto-compression';

const LEAF = 65536;
const LEAVES_PER_BATCH = 16;
/** Bytes that lie between a sender and its link: in the process, and in the kernels of both sides. */
const BUFFERED = 8 << 20;
const MB = 1e3;
/** What paper codecs make of a leaf: only its length counts. */
const SCRATCH = Buffer.alloc(2 * LEAF);

/** Rates in bytes a millisecond: MB for a megabyte a second. */
interface World {
  /** What the link takes, at a time in milliseconds. */
  readonly link: (now: number) => number;
  /** What the receiver takes of pages, whatever they were on the wire. */
  readonly receiver?: number;
  /** How fast the sender reads and hashes. */
  readonly work?: number;
  readonly codecs: readonly PaperCodec[];
}

/** A codec that does nothing but take its time. */
interface PaperCodec {
  /** How fast it compresses. */
  readonly rate: number;
  /** What is left of leaf n. */
  readonly left: (leaf: number) => number;
  /** How fast the receiver restores. */
  readonly restores?: number;
}

interface Outcome {
  readonly milliseconds: number;
  /** Of all leaves that were sent, the share that was compressed, and by codec. */
  readonly compressed: number;
  readonly shares: readonly number[];
}

/** Sends leaves through a link that exists on paper only, on a clock of its own. */
function simulate(world: World, leaves: number, compresses: boolean): Outcome {
  const { link, receiver = Infinity, work = 1000 * MB } = world;
  let now = 0;
  let current = 0;
  const codecs = world.codecs.map(({ rate, left }): Codec => ({
    compress(pages) {
      now += pages.length / rate;
      return SCRATCH.subarray(0, Math.round(pages.length * left(current)));
    },
    restore: () => undefined,
  }));
  const auto = compresses ? new AutoCompression(codecs, () => now) : undefined;
  /** What is on its way: bytes on the wire and of pages, and milliseconds that the receiver restores them. */
  const queue: { wire: number; pages: number; restoring: number }[] = [];
  let queued = 0;
  let sent = 0;
  let drained = 0;
  /** Lets the link work until `time`, or until no more than `most` bytes are queued. */
  const drain = (time: number, most: number): void => {
    for (let head = queue[0]; head !== undefined && drained < time && queued > most; head = queue[0]) {
      const rate = Math.min(link(drained), head.wire / (head.pages / receiver + head.restoring));
      const wire = Math.min(head.wire, rate * (time - drained), 65536);
      head.pages -= (head.pages * wire) / head.wire;
      head.restoring -= (head.restoring * wire) / head.wire;
      head.wire -= wire;
      queued -= wire;
      drained += wire / rate;
      if (head.wire < 1e-6) queue.shift();
    }
    if (queue.length === 0 && time !== Infinity) drained = Math.max(drained, time);
  };

  const compressed = world.codecs.map(() => 0);
  const pages = Buffer.alloc(LEAF);
  for (let batch = 0; batch < leaves; batch += LEAVES_PER_BATCH) {
    let wire = 0;
    let restoring = 0;
    for (current = batch; current < batch + LEAVES_PER_BATCH; current++) {
      now += LEAF / work;
      const { stored, codec } = auto?.shrink(pages) ?? { stored: LEAF, codec: 0 };
      wire += stored;
      if (stored === LEAF) continue;
      compressed[codec] = (compressed[codec] ?? 0) + 1;
      restoring += LEAF / (world.codecs[codec]?.restores ?? Infinity);
    }
    drain(now, 0);
    queue.push({ wire, pages: LEAVES_PER_BATCH * LEAF, restoring });
    queued += wire;
    sent += wire;
    const before = now;
    drain(Infinity, BUFFERED);
    now = Math.max(now, queued > 0.99 * BUFFERED ? drained : now);
    drain(now, 0);
    auto?.sent(now - before, sent - queued, sent);
  }
  drain(Infinity, 0);
  const shares = compressed.map((count) => count / leaves);
  return { milliseconds: Math.max(now, drained), compressed: shares.reduce((sum, share) => sum + share, 0), shares };
}

/** How long it takes with the automatic choice, as a share of how long it takes without compression. */
function compare(world: World, leaves = 8192): { share: number; compressed: number } {
  const none = simulate(world, leaves, false);
  const auto = simulate(world, leaves, true);
  return { share: auto.milliseconds / none.milliseconds, compressed: auto.compressed };
}

/** One codec, by default as fast as LZ4 of text. */
function one(left: (leaf: number) => number, rate = 450 * MB): { readonly codecs: readonly PaperCodec[] } {
  return { codecs: [{ rate, left }] };
}

const TEXT = (): number => 0.35;
const RANDOM = (): number => 1.01;
const GIGABIT = (): number => 125 * MB;

test('text goes over a gigabit link more than twice as fast', (t) => {
  const { share, compressed } = compare({ link: GIGABIT, ...one(TEXT) });
  t.true(share < 0.45, String(share));
  t.true(compressed > 0.9, String(compressed));
});

test('it does not take long to find out that compressing pays', (t) => {
  const { milliseconds } = simulate({ link: GIGABIT, ...one(() => 0.5) }, 8192, true);
  const fromTheStart = (8192 * LEAF * 0.5) / (125 * MB);
  const ofFullBuffers = (BUFFERED * 0.5) / (125 * MB);
  t.true(milliseconds < fromTheStart + ofFullBuffers + 25, `${milliseconds} ms instead of ${fromTheStart}`);
});

test('text goes over slower links as much faster as it gets smaller', (t) => {
  for (const rate of [1.25, 12.5, 50]) {
    const { share } = compare({ link: () => rate * MB, ...one(TEXT) }, 4096);
    t.true(share < 0.42, `${rate} MB/s: ${share}`);
  }
});

test('what cannot be compressed takes no longer', (t) => {
  for (const rate of [1.25, 12.5, 125, 1250]) {
    const { share, compressed } = compare({ link: () => rate * MB, ...one(RANDOM, 200 * MB) }, 4096);
    t.true(share < 1.01, `${rate} MB/s: ${share}`);
    t.is(compressed, 0);
  }
});

test('nothing is compressed for a link that is as fast as compressing', (t) => {
  for (const rate of [400, 600, 1250, 5000]) {
    const { share, compressed } = compare({ link: () => rate * MB, ...one(TEXT), work: 1500 * MB });
    t.true(share < 1.02, `${rate} MB/s: ${share}`);
    t.true(compressed < 0.02, `${rate} MB/s: ${compressed}`);
  }
});

test('a receiver that writes slowly is told apart from a slow link', (t) => {
  const { share, compressed } = compare({ link: () => 1250 * MB, receiver: 100 * MB, ...one(TEXT) }, 32_768);
  t.true(share < 1.02, String(share));
  t.true(compressed < 0.3, String(compressed));
});

test('text is compressed where it comes behind random bytes, and random bytes are not where they come behind text', (t) => {
  const half = (leaf: number): number => (leaf < 4096 ? 1.01 : 0.35);
  const behind = compare({ link: GIGABIT, ...one(half) });
  t.true(behind.share < 0.75 && behind.compressed > 0.4, JSON.stringify(behind));
  const ahead = compare({ link: GIGABIT, ...one((leaf) => half(8191 - leaf)) });
  t.true(ahead.share < 0.75 && ahead.compressed > 0.4, JSON.stringify(ahead));
});

test('text and random bytes by turns cost the random bytes little', (t) => {
  const { share } = compare({
    link: GIGABIT,
    ...one((leaf) => (Math.floor(leaf / 64) % 2 === 0 ? 0.35 : 1.01), 300 * MB),
  });
  t.true(share < 0.8, String(share));
});

test('a link that becomes slow, or fast, is noticed', (t) => {
  const slower = compare({ link: (now) => (now < 500 ? 2000 : 60) * MB, ...one(TEXT) }, 32_768);
  t.true(slower.share < 0.5, JSON.stringify(slower));
  const faster = compare({ link: (now) => (now < 1000 ? 60 : 5000) * MB, ...one(TEXT), work: 1500 * MB }, 131_072);
  t.true(faster.share < 1.15, JSON.stringify(faster));
});

/** A fast codec and a thorough one, as of text. */
const LZ4: PaperCodec = { rate: 450 * MB, left: () => 0.41, restores: 1300 * MB };
const ZSTD: PaperCodec = { rate: 300 * MB, left: () => 0.28, restores: 750 * MB };

/** How long it takes with both, as a share of how long it takes with the first alone, and without any. */
function compareBoth(world: World, leaves = 8192): { ofFirst: number; ofNone: number; shares: readonly number[] } {
  const both = simulate(world, leaves, true);
  const first = simulate({ ...world, codecs: world.codecs.slice(0, 1) }, leaves, true);
  const none = simulate(world, leaves, false);
  return {
    ofFirst: both.milliseconds / first.milliseconds,
    ofNone: both.milliseconds / none.milliseconds,
    shares: both.shares,
  };
}

test('over a slow link the thorough codec is taken, over a middle one the fast one, over a fast one none', (t) => {
  const over = (rate: number): ReturnType<typeof compareBoth> =>
    compareBoth({ link: () => rate * MB, codecs: [LZ4, ZSTD] });
  for (const rate of [1.25, 12.5, 40]) {
    const { ofFirst, shares } = over(rate);
    t.true(ofFirst < 0.75, `${rate} MB/s: ${ofFirst}`);
    t.true((shares[1] ?? 0) > 0.9, `${rate} MB/s: ${shares.join(', ')}`);
  }
  const middle = over(140);
  t.true((middle.shares[0] ?? 0) > 0.9, middle.shares.join(', '));
  const fast = over(1250);
  t.true(fast.shares.every((share) => share < 0.02) && fast.ofNone < 1.02, JSON.stringify(fast));
});

test('two codecs to choose from cost no more time than one, whatever the link', (t) => {
  const byTurns = (left: number) => (leaf: number) => (leaf % 200 < 100 ? left : 1.01);
  const others = [() => 0.28, () => 0.4, () => 0.95, RANDOM].map((left): PaperCodec[] => [LZ4, { ...ZSTD, left }]);
  const mixed = [LZ4, ZSTD].map((codec): PaperCodec => ({ ...codec, left: byTurns(codec.left(0)) }));
  for (const [world, codecs] of [...others, mixed].entries()) {
    for (const rate of [1.25, 12.5, 60, 90, 125, 160, 250, 400, 1250]) {
      const { ofFirst, ofNone } = compareBoth({ link: () => rate * MB, codecs }, 16_384);
      t.true(ofFirst < 1.04 && ofNone < 1.04, `${rate} MB/s in world ${world}: ${ofFirst} and ${ofNone}`);
    }
  }
});

test('a receiver that takes long to restore what the thorough codec makes gets the other', (t) => {
  const slow = { ...ZSTD, restores: 90 * MB };
  const { ofFirst, shares } = compareBoth({ link: () => 60 * MB, codecs: [LZ4, slow] }, 32_768);
  t.true(ofFirst < 1.1, String(ofFirst));
  t.true((shares[0] ?? 0) > 0.7, shares.join(', '));
});

test('a link that becomes slow gets the thorough codec, and one that becomes faster the other', (t) => {
  const slower = simulate({ link: (now) => (now < 1000 ? 140 : 20) * MB, codecs: [LZ4, ZSTD] }, 16_384, true);
  t.true((slower.shares[1] ?? 0) > 0.6, slower.shares.join(', '));
  const faster = simulate({ link: (now) => (now < 1000 ? 20 : 140) * MB, codecs: [LZ4, ZSTD] }, 65_536, true);
  t.true((faster.shares[0] ?? 0) > 0.6, faster.shares.join(', '));
});

test('what only the thorough codec can compress is compressed with it', (t) => {
  const { ofFirst, shares } = compareBoth({
    link: GIGABIT,
    codecs: [
      { ...LZ4, left: RANDOM },
      { ...ZSTD, left: () => 0.5 },
    ],
  });
  t.true(ofFirst < 0.6, String(ofFirst));
  t.true((shares[1] ?? 0) > 0.9, shares.join(', '));
});
