import test from 'ava';
import type { Codec } from '@ballast/shared/compression';
import { AutoCompression } from '@ballast/sender/auto-compression';

const LEAF = 65536;
const LEAVES_PER_BATCH = 16;
/** Bytes that lie between a sender and its link: in the process, and in the kernels of both sides. */
const BUFFERED = 8 << 20;
const MB = 1e3;

/** Rates in bytes a millisecond: MB for a megabyte a second. */
interface World {
  /** What the link takes, at a time in milliseconds. */
  readonly link: (now: number) => number;
  /** What the receiver takes of pages, whatever they were on the wire. */
  readonly receiver?: number;
  /** How fast the sender reads and hashes. */
  readonly work?: number;
  readonly codec?: number;
  /** What is left of leaf n when it is compressed. */
  readonly left: (leaf: number) => number;
}

interface Outcome {
  readonly milliseconds: number;
  /** Of all leaves that were sent, the share that was compressed. */
  readonly compressed: number;
}

/** Sends leaves through a link that exists on paper only, on a clock of its own. */
function simulate(world: World, leaves: number, compresses: boolean): Outcome {
  const { link, receiver = Infinity, work = 1000 * MB, codec: codecRate = 450 * MB, left } = world;
  let now = 0;
  let current = 0;
  const codec: Codec = {
    compress(pages) {
      now += pages.length / codecRate;
      return Buffer.alloc(Math.round(pages.length * left(current)));
    },
    restore: () => undefined,
  };
  const auto = compresses ? new AutoCompression(codec, () => now) : undefined;
  const queue: { wire: number; pages: number }[] = [];
  let queued = 0;
  let sent = 0;
  let drained = 0;
  /** Lets the link work until `time`, or until no more than `most` bytes are queued. */
  const drain = (time: number, most: number): void => {
    for (let head = queue[0]; head !== undefined && drained < time && queued > most; head = queue[0]) {
      const rate = Math.min(link(drained), (receiver * head.wire) / head.pages);
      const wire = Math.min(head.wire, rate * (time - drained), 65536);
      head.pages -= (head.pages * wire) / head.wire;
      head.wire -= wire;
      queued -= wire;
      drained += wire / rate;
      if (head.wire < 1e-6) queue.shift();
    }
    if (queue.length === 0 && time !== Infinity) drained = Math.max(drained, time);
  };

  let compressed = 0;
  const pages = Buffer.alloc(LEAF);
  for (let batch = 0; batch < leaves; batch += LEAVES_PER_BATCH) {
    let wire = 0;
    for (current = batch; current < batch + LEAVES_PER_BATCH; current++) {
      now += LEAF / work;
      const stored = auto?.shrink(pages) ?? LEAF;
      if (stored < LEAF) compressed++;
      wire += stored;
    }
    drain(now, 0);
    queue.push({ wire, pages: LEAVES_PER_BATCH * LEAF });
    queued += wire;
    sent += wire;
    const before = now;
    drain(Infinity, BUFFERED);
    now = Math.max(now, queued > 0.99 * BUFFERED ? drained : now);
    drain(now, 0);
    auto?.sent(now - before, sent - queued);
  }
  drain(Infinity, 0);
  return { milliseconds: Math.max(now, drained), compressed: compressed / leaves };
}

/** How long it takes with the automatic choice, as a share of how long it takes without compression. */
function compare(world: World, leaves = 8192): { share: number; compressed: number } {
  const none = simulate(world, leaves, false);
  const auto = simulate(world, leaves, true);
  return { share: auto.milliseconds / none.milliseconds, compressed: auto.compressed };
}

const TEXT = (): number => 0.35;
const RANDOM = (): number => 1.01;
const GIGABIT = (): number => 125 * MB;

test('text goes over a gigabit link more than twice as fast', (t) => {
  const { share, compressed } = compare({ link: GIGABIT, left: TEXT });
  t.true(share < 0.45, String(share));
  t.true(compressed > 0.9, String(compressed));
});

test('it does not take long to find out that compressing pays', (t) => {
  const { milliseconds } = simulate({ link: GIGABIT, left: () => 0.5 }, 8192, true);
  const fromTheStart = (8192 * LEAF * 0.5) / (125 * MB);
  const ofFullBuffers = (BUFFERED * 0.5) / (125 * MB);
  t.true(milliseconds < fromTheStart + ofFullBuffers + 25, `${milliseconds} ms instead of ${fromTheStart}`);
});

test('text goes over slower links as much faster as it gets smaller', (t) => {
  for (const rate of [1.25, 12.5, 50]) {
    const { share } = compare({ link: () => rate * MB, left: TEXT }, 4096);
    t.true(share < 0.42, `${rate} MB/s: ${share}`);
  }
});

test('what cannot be compressed takes no longer', (t) => {
  for (const rate of [1.25, 12.5, 125, 1250]) {
    const { share, compressed } = compare({ link: () => rate * MB, left: RANDOM, codec: 200 * MB }, 4096);
    t.true(share < 1.01, `${rate} MB/s: ${share}`);
    t.is(compressed, 0);
  }
});

test('nothing is compressed for a link that is as fast as compressing', (t) => {
  for (const rate of [400, 600, 1250, 5000]) {
    const { share, compressed } = compare({ link: () => rate * MB, left: TEXT, work: 1500 * MB });
    t.true(share < 1.02, `${rate} MB/s: ${share}`);
    t.true(compressed < 0.02, `${rate} MB/s: ${compressed}`);
  }
});

test('a receiver that writes slowly is told apart from a slow link', (t) => {
  const { share, compressed } = compare({ link: () => 1250 * MB, receiver: 100 * MB, left: TEXT }, 32_768);
  t.true(share < 1.02, String(share));
  t.true(compressed < 0.3, String(compressed));
});

test('text is compressed where it comes behind random bytes, and random bytes are not where they come behind text', (t) => {
  const half = (leaf: number): number => (leaf < 4096 ? 1.01 : 0.35);
  const behind = compare({ link: GIGABIT, left: half });
  t.true(behind.share < 0.75 && behind.compressed > 0.4, JSON.stringify(behind));
  const ahead = compare({ link: GIGABIT, left: (leaf) => half(8191 - leaf) });
  t.true(ahead.share < 0.75 && ahead.compressed > 0.4, JSON.stringify(ahead));
});

test('text and random bytes by turns cost the random bytes little', (t) => {
  const { share } = compare({
    link: GIGABIT,
    codec: 300 * MB,
    left: (leaf) => (Math.floor(leaf / 64) % 2 === 0 ? 0.35 : 1.01),
  });
  t.true(share < 0.8, String(share));
});

test('a link that becomes slow, or fast, is noticed', (t) => {
  const slower = compare({ link: (now) => (now < 500 ? 2000 : 60) * MB, left: TEXT }, 32_768);
  t.true(slower.share < 0.5, JSON.stringify(slower));
  const faster = compare({ link: (now) => (now < 1000 ? 60 : 5000) * MB, left: TEXT, work: 1500 * MB }, 131_072);
  t.true(faster.share < 1.15, JSON.stringify(faster));
});
