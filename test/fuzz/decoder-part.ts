import { BallastError } from '@ballast/shared/errors';
import {
  FrameDecoder,
  HEADER_SIZE,
  MAX_PAYLOAD,
  PREAMBLE,
  RangeEncoder,
  WhiteoutEncoder,
  HoldingsEncoder,
  decodeControl,
  decodeHoldings,
  decodeLeafRecords,
  decodeRanges,
  decodeWhiteouts,
  LeafTable,
  type Frame,
} from '@ballast/shared/protocol';
import { popCount } from '@ballast/shared/memory';
import { LEAF, PAGE } from './fake-memory.js';
import { Finding, checkError } from './oracle.js';
import type { Random } from './random.js';
import {
  Type,
  controlFrame,
  encodeFrame,
  mutateBytes,
  mutateFrame,
  mutateMessage,
  wireFrame,
  type WireFrame,
} from './wire-frame.js';

/**
 * One case: a stream that began as a right one, in pieces, through the decoder and what reads its payloads.
 * @returns how it ended
 */
export function fuzzDecoder(random: Random): string {
  const regionPages = random.pick([1, 16, 17, 100, 4096, 2 ** 34]);
  const spoilt = !random.oneIn(8);
  const frames = Array.from({ length: random.between(1, 5) }, () => rightFrame(random, regionPages));
  const stream = bytesOfStream(random, frames, spoilt);
  let seen = 0;
  let bytes = PREAMBLE.length;
  try {
    for (const frame of decodeAll(random, stream, regionPages)) {
      seen++;
      bytes += HEADER_SIZE + frame.payload.length;
      if (bytes > stream.length) throw new Finding(`${seen} frames came out of ${stream.length} bytes`);
    }
  } catch (error) {
    if (error instanceof Finding) throw error;
    const { code } = checkError(error);
    if (!spoilt) throw new Finding('a right stream was refused', { cause: error });
    return code;
  }
  if (!spoilt && seen !== frames.length) throw new Finding(`${seen} of ${frames.length} right frames came out`);
  return seen === frames.length ? 'whole' : 'waits for more';
}

/** The bytes of a stream, through a decoder, in pieces of any size; each frame is read as its type wants. */
export function* decodeAll(random: Random, stream: Buffer, regionPages: number): Generator<Frame> {
  const decoder = new FrameDecoder();
  const held: Frame[] = [];
  for (let at = 0; at < stream.length;) {
    const size = random.oneIn(4) ? random.between(1, 9) : random.between(1, 8192);
    const taken = decoder.push(stream.subarray(at, at + size));
    at += taken;
    for (let frame = decoder.shift(); frame !== undefined; frame = decoder.shift()) {
      if (frame.payload.length !== frame.header.length) throw new Finding('a payload is not as long as announced');
      readPayload(frame, regionPages * PAGE);
      yield frame;
      held.push(frame);
    }
    // Frames come back late, so that the decoder has to wait for its memory now and then.
    if (taken === 0 && held.length === 0) throw new Finding('the decoder waits for a frame that nobody has');
    if (taken === 0 || random.oneIn(2)) for (const frame of held.splice(0)) decoder.recycle(frame);
  }
}

/** What the two sides do with a payload, and what they rely on afterwards. */
function readPayload({ header, payload }: Frame, regionBytes: number): void {
  const pages = regionBytes / PAGE;
  switch (header.type) {
    case Type.control:
      decodeControl(payload);
      return;
    case Type.leaves: {
      let pageBytes = 0;
      for (const { leaf, mask, sent, stored, at } of decodeLeafRecords(header, payload, regionBytes)) {
        if (leaf * 16 + 31 - Math.clz32(mask) >= pages) throw new Finding('a leaf record lies beyond its region');
        if (mask === 0 || (sent & ~mask) !== 0) throw new Finding('a leaf record contradicts itself');
        if (at + stored > payload.length || stored !== popCount(sent) * PAGE) throw new Finding('pages lie outside');
        pageBytes += stored;
      }
      if (pageBytes > 1 << 20) throw new Finding('more pages than a frame may carry');
      return;
    }
    case Type.holdings: {
      let previous = -1;
      for (const { leaf, mask, digest, hints } of decodeHoldings(header, payload, regionBytes)) {
        if (leaf <= previous || leaf * LEAF >= regionBytes) throw new Finding('a held leaf is out of order or range');
        if (digest.length !== 32 || hints.length !== 8 * popCount(mask)) throw new Finding('a held leaf is cut');
        previous = leaf;
      }
      return;
    }
    case Type.state:
    case Type.filler:
      return;
    default: {
      const runs =
        header.type === Type.whiteouts
          ? decodeWhiteouts(payload, header.count, pages)
          : decodeRanges(payload, header.count, header.base, pages);
      for (const { start, end } of runs)
        if (!(start >= 0 && start < end && end <= pages)) throw new Finding(`a run [${start}, ${end}) is no run`);
    }
  }
}

function bytesOfStream(random: Random, right: readonly WireFrame[], spoilt: boolean): Buffer {
  const frames = [...right];
  if (spoilt) {
    for (let times = random.pick([0, 1, 1, 1, 2]); times > 0; times--) {
      const index = random.below(frames.length);
      const frame = frames[index];
      if (frame === undefined) continue;
      switch (random.below(10)) {
        case 0:
          frames.splice(index, 1);
          if (frames.length === 0) frames.push(frame);
          break;
        case 1:
          frames.splice(index, 0, frame);
          break;
        default:
          frames[index] = mutateFrame(random, frame);
      }
    }
  }
  const pieces = frames.map((frame, sequence) => encodeFrame(frame, sequence));
  const stream = Buffer.concat([PREAMBLE, ...pieces]);
  if (!spoilt) return stream;
  switch (random.below(16)) {
    case 0:
      return mutateBytes(random, stream);
    case 1:
      return Buffer.concat([...pieces, PREAMBLE]);
    case 2:
      return random.bytes(random.below(200));
    case 3:
      return stream.subarray(0, random.below(stream.length));
    default:
      return stream;
  }
}

function rightFrame(random: Random, regionPages: number): WireFrame {
  switch (random.below(7)) {
    case 0:
      return leavesFrame(random, regionPages);
    case 1:
      return holdingsFrame(random, regionPages);
    case 2: {
      const encoder = new WhiteoutEncoder();
      eachRun(random, regionPages, 300, (start, end) => encoder.add(start, end));
      const count = encoder.count;
      return wireFrame(Type.whiteouts, encoder.take(), { count });
    }
    case 3:
    case 4: {
      const encoder = new RangeEncoder();
      eachRun(random, regionPages, 2 ** 34, (start, end) => {
        encoder.add(start, end);
      });
      const { count, base } = encoder;
      return wireFrame(random.pick([Type.freeRanges, Type.zeroRanges]), encoder.take(), { count, base });
    }
    case 5:
      return wireFrame(random.pick([Type.state, Type.filler]), random.bytes(random.pick([0, 1, 100, 5000])));
    default:
      return random.oneIn(5) ? controlFrame(rightMessage(random)) : spoiltMessage(random);
  }
}

/** A control frame whose message is right. Wrong ones come from `mutateMessage` where the stream is spoilt anyway. */
function spoiltMessage(random: Random): WireFrame {
  const message = rightMessage(random);
  const frame = mutateMessage(random, message);
  try {
    decodeControl(frame.payload);
    return frame;
  } catch (error) {
    // Judged here, since a stream that is right must stay so.
    if (!(error instanceof BallastError)) throw new Finding('a message broke its reader', { cause: error });
    checkError(error);
    return controlFrame(message);
  }
}

export function summaryOf(random: Random): Record<string, unknown> {
  return {
    strategy: random.pick(['unmodified', 'consult', 'skip', 'bitmap']),
    dataBytes: 4096,
    zeroBytes: 0,
    freeBytes: 2 ** 40,
    scannedPages: 1,
    askedPages: 1,
    whiteouts: 1,
    mapBytes: 1,
    sentBytes: 1,
    storedBytes: 1,
    mapDigest: 'ab'.repeat(32),
  };
}

export function rightMessage(random: Random): Record<string, unknown> {
  const text = random.pick(['', 'E_BUSY', 'busy', 'x'.repeat(1024), '\u001b[2J\u202e']);
  return random.pick<() => Record<string, unknown>>([
    () => ({
      kind: 'hello',
      session: random.bytes(16),
      regions: Array.from({ length: random.pick([1, 2, 64]) }, () => PAGE * random.between(1, 1000)),
      dialect: random.pick(['whiteouts', 'map', 'ranges']),
      compress: random.pick(['none', 'lz4', 'zstd']),
      ...(random.oneIn(3) && { offers: random.pick([['zstd'], ['lz4', 'zstd']]) }),
      dataBytesAtMost: random.pick([0, 4096, 2 ** 46]),
      channels: random.pick([0, 1, 16]),
      live: random.oneIn(2),
    }),
    () => ({
      kind: 'welcome',
      holds: random.oneIn(2),
      channels: random.pick([0, 1, 16]),
      ...(random.oneIn(3) && { takes: ['zstd'] }),
    }),
    () => ({ kind: 'published-before', root: random.bytes(32) }),
    () => ({ kind: 'refuse', code: 'E_BUSY', message: text }),
    () => ({ kind: 'end', root: random.bytes(32), summary: summaryOf(random) }),
    () => ({
      kind: 'resend',
      leaves: Array.from({ length: random.pick([1, 2, 1024]) }, () => [random.below(3), random.below(9)]),
    }),
    () => ({ kind: 'verified', root: random.bytes(32) }),
    () => ({ kind: 'commit' }),
    () => ({ kind: 'published' }),
    () => ({ kind: 'goodbye' }),
    () => ({ kind: 'join', session: random.bytes(16) }),
    () => ({ kind: 'joined' }),
    () => ({ kind: 'ask', region: random.below(64), first: random.below(9), end: random.below(1000) }),
    () => ({ kind: 'finished' }),
    () => ({ kind: 'never-published' }),
    () => ({ kind: 'round', number: random.between(2, 10_000) }),
    () => ({ kind: 'received', round: random.between(1, 9), again: random.pick([[], [[0, 1]]]) }),
    () => ({ kind: 'state-end', bytes: random.below(2 ** 28), running: random.oneIn(2) }),
    () => ({ kind: 'loaded' }),
    () => ({ kind: 'probe' }),
    () => ({ kind: 'probe-ready' }),
    () => ({ kind: 'probe-end' }),
    () => ({ kind: 'probed', bytes: random.below(2 ** 36), microseconds: random.below(60e6) }),
    () => ({ kind: 'heartbeat' }),
    () => ({ kind: 'abort', code: 'E_INTERNAL', message: text }),
  ])();
}

/** Ascending runs that do not touch, at most `most` pages in all. */
function eachRun(random: Random, pages: number, most: number, visit: (start: number, end: number) => void): void {
  let room = most;
  let page = random.below(Math.min(pages, 1000));
  for (let runs = random.between(1, 20); runs > 0 && page < pages && room > 0; runs--) {
    const end = Math.min(pages, page + Math.min(room, random.pick([1, 2, 100, random.between(1, 5000)])));
    visit(page, end);
    room -= end - page;
    page = end + random.pick([1, 2, random.between(1, 2 ** 20)]);
  }
}

function someMask(random: Random, leaf: number, pages: number): number {
  const width = Math.min(16, pages - leaf * 16);
  return random.between(1, 2 ** width - 1);
}

function ascendingLeaves(random: Random, pages: number): number[] {
  const leaves = Math.ceil(pages / 16);
  const found: number[] = [];
  let leaf = random.below(leaves);
  for (let count = random.between(1, 12); count > 0 && leaf < leaves; count--) {
    found.push(leaf);
    leaf += random.pick([1, 1, 2, random.between(1, 1000)]);
  }
  return found;
}

function leavesFrame(random: Random, pages: number): WireFrame {
  const leaves = ascendingLeaves(random, pages);
  const [base = 0] = leaves;
  const table = new LeafTable(leaves.length);
  let bytes = 0;
  for (const [index, leaf] of leaves.entries()) {
    const mask = someMask(random, leaf, pages);
    // Few of them carry pages: what is to be broken is the table.
    const sent = random.oneIn(6) ? mask & random.below(65536) : 0;
    table.write(index, leaf - base, mask, sent, popCount(sent) * PAGE, ZERO_DIGEST);
    bytes += popCount(sent) * PAGE;
  }
  return wireFrame(Type.leaves, Buffer.concat([table.bytes, Buffer.alloc(bytes)]), { count: leaves.length, base });
}

const ZERO_DIGEST = Buffer.alloc(32);

function holdingsFrame(random: Random, pages: number): WireFrame {
  const encoder = new HoldingsEncoder();
  for (const leaf of ascendingLeaves(random, pages)) {
    const mask = someMask(random, leaf, pages);
    encoder.add({ leaf, mask, digest: ZERO_DIGEST, hints: Buffer.alloc(8 * popCount(mask)) });
  }
  const { count, base } = encoder;
  const payload = encoder.take();
  if (payload.length > MAX_PAYLOAD[Type.holdings]) throw new Error('the fuzzer makes holdings that are too large');
  return wireFrame(Type.holdings, payload, { count, base });
}
