import { codecOf } from '@ballast/shared/compression';
import { digestOf } from '@ballast/shared/integrity';
import { LEAF_RECORD_SIZE, LeafTable, RangeEncoder, WhiteoutEncoder } from '@ballast/shared/protocol';
import { PAGE, leavesOf, pageOf, type FakeRegion } from './fake-memory.js';
import type { Random } from './random.js';
import { Type, mutateFrame, wireFrame, type WireFrame } from './wire-frame.js';

/* The frames in which a sender tells about its memory, right and a little wrong. */

export type DialectName = 'whiteouts' | 'map' | 'ranges';

/** The same leaves, some of them compressed, as far as they get smaller. */
export function compressSome(random: Random, frame: WireFrame): WireFrame {
  const table = Buffer.from(frame.payload.subarray(0, frame.count * LEAF_RECORD_SIZE));
  const pieces: Buffer[] = [table];
  let at = table.length;
  for (let record = 0; record < table.length; record += LEAF_RECORD_SIZE) {
    const length = table.readUInt32LE(record + 8);
    const pages = frame.payload.subarray(at, at + length);
    at += length;
    const compressed = length > 0 && random.oneIn(2) ? codecOf('lz4')?.compress(pages) : undefined;
    const stored = compressed !== undefined && compressed.length < length ? compressed : pages;
    table.writeUInt32LE(stored.length, record + 8);
    pieces.push(stored);
  }
  return { ...frame, payload: Buffer.concat(pieces) };
}

export interface SentLeaf {
  readonly leaf: number;
  readonly mask: number;
  readonly sent: number;
  readonly pages: readonly Buffer[];
  readonly digest: Buffer;
}

export function leavesFrame(region: number, leaves: readonly SentLeaf[]): WireFrame {
  const base = leaves[0]?.leaf ?? 0;
  const table = new LeafTable(leaves.length);
  const pages: Buffer[] = [];
  for (const [index, { leaf, mask, sent, pages: all, digest }] of leaves.entries()) {
    const chosen = all.filter((_, n) => (sent & nthBit(mask, n)) !== 0);
    table.write(index, leaf - base, mask, sent, chosen.length * PAGE, digest);
    pages.push(...chosen);
  }
  return wireFrame(Type.leaves, Buffer.concat([table.bytes, ...pages]), { region, count: leaves.length, base });
}

/** The n-th bit that is set. */
function nthBit(mask: number, n: number): number {
  let rest = mask;
  for (let skip = n; skip > 0; skip--) rest &= rest - 1;
  return rest & -rest;
}

/** All that a right sender says between hello and end; what the other side holds may be left out. */
export function bulkFrames(
  random: Random,
  memory: readonly FakeRegion[],
  dialect: DialectName,
  holds: readonly FakeRegion[] | undefined,
  goesWrong: () => boolean,
): WireFrame[] {
  const frames: WireFrame[] = [];
  const isFree = (page: unknown): boolean => page === 'free';
  const isZero = (page: unknown): boolean => page === 'zero';
  if (dialect !== 'whiteouts')
    for (const [region, pages] of memory.entries())
      frames.push(...ranges(Type.freeRanges, region, runsOf(pages, isFree)));
  for (const [region, pages] of memory.entries()) {
    const leaves = leavesOf(pages).map((leaf) => {
      const held = holds?.[region]?.slice(leaf.leaf * 16, leaf.leaf * 16 + 16) ?? [];
      let sent = leaf.mask;
      for (const [n, page] of pages.slice(leaf.leaf * 16, leaf.leaf * 16 + 16).entries()) {
        const there = held[n];
        if (page instanceof Buffer && there instanceof Buffer && (page.equals(there) || goesWrong())) sent &= ~(1 << n);
      }
      // Only what the receiver was found to hold may be left out, which a reconnected sender here does not know.
      return { ...leaf, sent: goesWrong() ? sent & random.below(65536) : holds === undefined ? leaf.mask : sent };
    });
    for (let at = 0; at < leaves.length;) {
      const count = random.between(1, 4);
      frames.push(leavesFrame(region, leaves.slice(at, at + count)));
      at += count;
    }
    const others = runsOf(pages, dialect === 'whiteouts' ? (page) => isFree(page) || isZero(page) : isZero);
    if (dialect === 'ranges') frames.push(...ranges(Type.zeroRanges, region, others));
    else frames.push(...whiteouts(region, others));
  }
  return frames;
}

export function runsOf(pages: FakeRegion, which: (page: unknown) => boolean): [start: number, end: number][] {
  const runs: [number, number][] = [];
  for (let page = 0; page < pages.length; page++) {
    if (!which(pages[page])) continue;
    const start = page;
    while (page < pages.length && which(pages[page])) page++;
    runs.push([start, page]);
  }
  return runs;
}

export function ranges(type: number, region: number, runs: readonly (readonly [number, number])[]): WireFrame[] {
  if (runs.length === 0) return [];
  const encoder = new RangeEncoder();
  for (const [start, end] of runs) encoder.add(start, end);
  const { count, base } = encoder;
  return [wireFrame(type, encoder.take(), { region, count, base })];
}

function whiteouts(region: number, runs: readonly (readonly [number, number])[]): WireFrame[] {
  if (runs.length === 0) return [];
  const encoder = new WhiteoutEncoder();
  for (const [start, end] of runs) encoder.add(start, end);
  const count = encoder.count;
  return [wireFrame(Type.whiteouts, encoder.take(), { region, count })];
}

export function shuffle(random: Random, frames: WireFrame[]): void {
  for (let times = random.between(1, 3); times > 0 && frames.length > 1; times--) {
    const [taken] = frames.splice(random.below(frames.length), 1);
    if (taken !== undefined) frames.splice(random.below(frames.length + 1), 0, taken);
  }
}

/** A leaves frame that contradicts itself in ways that no checksum shows. */
export function spoilLeaves(random: Random, frame: WireFrame): WireFrame {
  if (frame.type !== Type.leaves || frame.payload.length < LEAF_RECORD_SIZE) return mutateFrame(random, frame);
  const payload = Buffer.from(frame.payload);
  const record = random.below(frame.count) * LEAF_RECORD_SIZE;
  const at = frame.count * LEAF_RECORD_SIZE;
  switch (random.below(6)) {
    case 0:
      payload[record + 16] = (payload[record + 16] ?? 0) ^ 1;
      break;
    case 1:
      if (at < payload.length) payload[random.between(at, payload.length - 1)] = random.below(256);
      break;
    case 2:
      payload.writeUInt16LE(random.below(65536), record + 4);
      break;
    case 3:
      payload.writeUInt16LE(payload.readUInt16LE(record + 4) & random.below(65536), record + 6);
      break;
    case 4:
      payload.writeUInt32LE(random.pick([0, 1, 2, 4, random.nasty() >>> 0]), record);
      break;
    default: {
      // Another set of pages, right in itself.
      const mask = random.between(1, 65535);
      const pages = Array.from({ length: 16 }, () => pageOf(random)).filter((_, n) => (mask & (1 << n)) !== 0);
      return leavesFrame(frame.region, [
        { leaf: frame.base, mask, sent: mask, pages, digest: digestOf(Buffer.concat(pages)) },
      ]);
    }
  }
  return { ...frame, payload };
}
