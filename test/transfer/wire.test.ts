import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { TransferResult } from '@ballast/receiver';
import { STRATEGY_NAMES, type BalloonOrigin, type SendOptions, type StrategyName } from '@ballast/sender';
import { FrameType, HEADER_SIZE, PREAMBLE, decodeControl, encodeControl } from '@ballast/shared/protocol';
import { temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, pageContents, writeBitmap, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { transfer } from '../support/transfer.js';
import { Wire, bytesButHeartbeats, framesOf, sameButHeartbeats, type RecordedFrame } from '../support/wire.js';

const GOODBYE_BYTES = HEADER_SIZE + encodeControl({ kind: 'goodbye' }).length;

interface Recording {
  readonly sent: TransferResult;
  readonly received: TransferResult;
  readonly fromSender: Buffer;
  readonly fromReceiver: Buffer;
  readonly frames: readonly RecordedFrame[];
}

/** Transfers a file and writes down what was on the wire. */
async function record(
  t: ExecutionContext,
  source: string,
  copy: string,
  send: Partial<SendOptions>,
): Promise<Recording> {
  const wires: Wire[] = [];
  const { sent, received } = await transfer({
    from: [source],
    to: [copy],
    send,
    receive: { force: true },
    async via(receiver) {
      const wire = await Wire.open(t, receiver);
      wires.push(wire);
      return wire.address;
    },
  });
  const [fromSender, fromReceiver] = wires.map((wire) => [wire.fromSender, wire.fromReceiver] as const)[0] ?? [];
  if (fromSender === undefined || fromReceiver === undefined) throw new Error('nothing was recorded');
  return { sent, received, fromSender, fromReceiver, frames: framesOf(fromSender) };
}

/** Everything between `hello` and `end`, headers included. */
function bulkOf(frames: readonly RecordedFrame[]): Buffer {
  return Buffer.concat(
    frames
      .filter(({ header }) => header.type !== FrameType.control)
      .flatMap((frame) => [withoutSequence(frame.headerBytes), frame.payload]),
  );
}

/** A header without its number and its checksum: heartbeats are numbered, too, and come when they come. */
function withoutSequence(header: Buffer): Buffer {
  return Buffer.from(header).fill(0, 4, 8).fill(0, 28, 32);
}

function payloadBytes(frames: readonly RecordedFrame[], type: FrameType): number {
  return frames.filter(({ header }) => header.type === type).reduce((sum, { payload }) => sum + payload.length, 0);
}

/** More pages than one frame of whiteouts has room for, and more data than one frame of leaves. */
const MIXED: Layout = [
  { fill: Fill.data, pages: 300 },
  { fill: Fill.hole, pages: 9000 },
  { fill: Fill.speck, pages: 1 },
  { fill: Fill.zero, pages: 90 },
  { fill: Fill.data, pages: 37 },
  { fill: Fill.hole, pages: 1 },
  { fill: Fill.data, pages: 2 },
  { fill: Fill.hole, pages: 600 },
];
const DATA = 340;
const ZERO = 90;
const FREE = 9601;

test('consult and unmodified put the same bytes on the wire for the same pages', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  const unmodified = await record(t, source, copy, { strategy: 'unmodified' });
  const consult = await record(t, source, copy, { strategy: 'consult' });
  t.true(bulkOf(unmodified.frames).equals(bulkOf(consult.frames)));
  t.is(unmodified.sent.root, consult.sent.root);
  // Not for want of a difference in what was read.
  t.is(unmodified.sent.scannedPages - consult.sent.scannedPages, FREE);
});

test('one strategy on the same file twice puts the same bytes on the wire, and mappings the same as positional reads', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  for (const strategy of STRATEGY_NAMES) {
    const first = await record(t, source, copy, { strategy });
    const second = await record(t, source, copy, { strategy, read: 'mmap' });
    t.true(bulkOf(first.frames).equals(bulkOf(second.frames)), strategy);
  }
});

test('stale bytes under a balloon bitmap never reach the wire, but with unmodified', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy, bitmap] = [join(folder, 'guest.mem'), join(folder, 'copy.mem'), join(folder, 'balloon.bits')];
  const layout: Layout = [
    { fill: Fill.data, pages: 21 },
    { fill: Fill.data, pages: 1, ballooned: true },
    { fill: Fill.data, pages: 5 },
  ];
  writeMemoryFile(source, layout);
  writeBitmap(bitmap, layout);
  const balloon: BalloonOrigin[] = [{ kind: 'bitmap', path: bitmap }];
  const stale = pageContents(Fill.data, 21, 1);
  const wanted = pageContents(Fill.data, 20, 1);
  for (const strategy of STRATEGY_NAMES) {
    const { fromSender } = await record(t, source, copy, { strategy, balloon });
    t.true(fromSender.includes(wanted), strategy);
    t.is(fromSender.includes(stale), strategy === 'unmodified', strategy);
  }
});

test('each side counts the bytes of the wire as someone between them does', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  for (const strategy of STRATEGY_NAMES) {
    const { sent, received, fromSender, fromReceiver } = await record(t, source, copy, { strategy });
    // All but the sender's last word, which comes after the result.
    sameButHeartbeats(t, sent.wireBytes, fromSender.length + fromReceiver.length - GOODBYE_BYTES, strategy);
    sameButHeartbeats(t, received.wireBytes, sent.wireBytes, strategy);
  }
});

test('the wire holds what the counts say: pages, 9 bytes a whiteout, the ranges', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  const whiteouts: Record<StrategyName, number> = {
    unmodified: ZERO + FREE,
    consult: ZERO + FREE,
    skip: ZERO,
    bitmap: 0,
  };
  const rest = new Map<StrategyName, number>();
  for (const strategy of STRATEGY_NAMES) {
    const { sent, frames, fromSender, fromReceiver } = await record(t, source, copy, { strategy });
    t.is(sent.whiteouts, whiteouts[strategy], strategy);
    t.is(payloadBytes(frames, FrameType.whiteouts), 9 * sent.whiteouts, strategy);
    t.is(
      payloadBytes(frames, FrameType.freeRanges) + payloadBytes(frames, FrameType.zeroRanges),
      sent.mapBytes,
      strategy,
    );
    const records = frames
      .filter(({ header }) => header.type === FrameType.leaves)
      .reduce((sum, { header }) => sum + header.count, 0);
    t.is(payloadBytes(frames, FrameType.leaves), DATA * PAGE + 48 * records, strategy);
    const framed = frames.reduce((sum, { payload }) => sum + HEADER_SIZE + payload.length, PREAMBLE.length);
    t.is(framed, fromSender.length, strategy);
    const all = bytesButHeartbeats([...frames, ...framesOf(fromReceiver)]);
    rest.set(strategy, all - 9 * sent.whiteouts - sent.mapBytes);
  }
  // What is left is pages and framing, and differs by a few headers.
  const left = [...rest.values()];
  t.true(Math.max(...left) - Math.min(...left) < 16 * HEADER_SIZE, String(left));
});

test('the map goes ahead of all pages, and pages by ascending address', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  for (const strategy of ['skip', 'bitmap'] as const) {
    const { frames } = await record(t, source, copy, { strategy });
    const types = frames.map(({ header }) => header.type);
    t.true(types.lastIndexOf(FrameType.freeRanges) < types.indexOf(FrameType.leaves), String(types));
    const bases = frames.filter(({ header }) => header.type === FrameType.leaves).map(({ header }) => header.base);
    t.deepEqual(
      bases,
      [...bases].sort((a, b) => a - b),
    );
    t.true(bases.length > 1);
  }
});

test('the dialogue is hello, welcome, end, verified, commit, published, goodbye', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  const { frames, fromReceiver } = await record(t, source, copy, {});
  const kinds = (list: readonly RecordedFrame[]): string[] =>
    list
      .filter(({ header }) => header.type === FrameType.control)
      .map(({ payload }) => decodeControl(payload).kind)
      // On a busy machine a side may be silent for long enough to say that it is alive.
      .filter((kind) => kind !== 'heartbeat');
  t.deepEqual(kinds(frames), ['hello', 'end', 'commit', 'goodbye']);
  t.deepEqual(kinds(framesOf(fromReceiver)), ['welcome', 'verified', 'published']);
});
