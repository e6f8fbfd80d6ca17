import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { receiveMemory, type ReceiveOptions, type TransferResult } from '@ballast/receiver';
import { codecOf } from '@ballast/shared/compression';
import { digestOf } from '@ballast/shared/integrity';
import { LEAF_RECORD_SIZE, RangeEncoder, WhiteoutEncoder, encodeLeafRecord } from '@ballast/shared/protocol';
import { rightMessage, summaryOf } from './decoder-part.js';
import {
  PAGE,
  bytesOf,
  fakeMemory,
  leavesOf,
  olderThan,
  pageOf,
  regionOf,
  rootOf,
  type FakeRegion,
} from './fake-memory.js';
import { Finding, checkError } from './oracle.js';
import { Peer } from './peer.js';
import type { Random } from './random.js';
import { Type, controlFrame, mutateFrame, mutateMessage, wireFrame, type WireFrame } from './wire-frame.js';

type DialectName = 'whiteouts' | 'map' | 'ranges';
type Message = Readonly<Record<string, unknown>>;

/**
 * How long the fake sender waits for a word. In a dialogue that goes wrong, a receiver that has nothing to say is no
 * finding; in a right one it has something to say.
 */
const PATIENCE_MS = 250;
const RIGHT_PATIENCE_MS = 20_000;
/** The timeout of the real side: short where something may go missing, and no matter of a busy machine where nothing does. */
const TIMEOUT_MS = 400;
const RIGHT_TIMEOUT_MS = 20_000;

/** What one case is: fixed before it begins, so that a seed tells it again. */
interface Scene {
  readonly memory: readonly FakeRegion[];
  readonly dialect: DialectName;
  readonly compress: 'none' | 'lz4';
  readonly session: Buffer;
  /** One in so many steps goes wrong; 0 for none. */
  readonly mischief: number;
}

/**
 * One case: a sender whose dialogue is right but for a few steps, against a real receiver. A file that gets its name
 * must be what the sender's last `end` said, and the sender must have said commit.
 */
export async function fuzzReceiver(random: Random, folder: string): Promise<string> {
  const scene: Scene = {
    memory: fakeMemory(random),
    dialect: random.pick(['whiteouts', 'map', 'ranges']),
    compress: random.pick(['none', 'lz4']),
    session: random.bytes(16),
    mischief: random.pick([0, 3, 8, 8, 20, 20]),
  };
  mkdirSync(folder);
  const names = scene.memory.map((_, index) => `memory-${index}`);
  const files = names.map((name) => join(folder, name));
  const before = random.pick(['fresh', 'fresh', 'partial', 'reuse', 'sink'] as const);
  const older = olderThan(random, scene.memory);
  const oldPaths = names.map((name) => join(folder, `${name}.old`));
  if (before === 'partial') for (const [n, region] of older.entries()) writeSparse(`${files[n] ?? ''}.partial`, region);
  if (before === 'reuse') for (const [n, region] of older.entries()) writeSparse(oldPaths[n] ?? '', region);
  const holds = before === 'partial' || before === 'reuse' ? older : undefined;

  const interruption = new AbortController();
  const { port, result } = await listen({
    files: before === 'sink' ? [] : files,
    sink: before === 'sink',
    ...(before === 'reuse' ? { reuse: oldPaths } : {}),
    timeoutMs: scene.mischief === 0 ? RIGHT_TIMEOUT_MS : TIMEOUT_MS,
    signal: interruption.signal,
  });
  const ending = result.then(
    (value) => ({ value, error: undefined }),
    (error: unknown) => ({ value: undefined, error }),
  );

  const told: Told = { roots: new Set(), committed: false };
  const connections = random.pick([1, 1, 2, 3]);
  for (let n = 0; n < connections; n++) {
    const peer = await Peer.connect(port);
    // Only the last connection goes to its end; those before it break somewhere.
    await speak(random, peer, scene, n === 0 ? holds : older, n + 1 < connections, told);
    peer.destroy();
    await peer.closed();
  }
  // A receiver that still waits for its sender would do so for its whole patience.
  await Promise.race([ending, sleep(5)]);
  interruption.abort();
  const { value, error } = await ending;

  const outcome = value === undefined ? checkError(error).code : 'published';
  if (value === undefined && scene.mischief === 0 && connections === 1)
    throw new Finding('a right dialogue was refused', { cause: error });
  checkFiles(scene, files, before === 'sink', value, told);
  const allowed = new Set([...names, ...names.map((name) => `${name}.partial`), ...names.map((name) => `${name}.old`)]);
  const stray = readdirSync(folder).find((name) => !allowed.has(name));
  if (stray !== undefined) throw new Finding(`a file appeared that nobody named: ${stray}`);
  if (before === 'reuse')
    for (const [n, region] of older.entries())
      if (!readFileSync(oldPaths[n] ?? '').equals(bytesOf(region))) throw new Finding('an older copy was changed');
  rmSync(folder, { recursive: true });
  return outcome;
}

/** What the sender claimed: the roots of all its `end` messages, since after a commit another connection may claim more. */
interface Told {
  readonly roots: Set<string>;
  committed: boolean;
}

function checkFiles(
  { memory }: Scene,
  files: readonly string[],
  isSink: boolean,
  result: TransferResult | undefined,
  told: Told,
): void {
  const there = files.filter((file) => existsSync(file));
  if (there.length > 0 && (isSink || !told.committed)) throw new Finding('a file has its name, and nobody committed');
  if (there.length > 0 && there.length < files.length) throw new Finding('some files have their names, others not');
  if (result !== undefined && !told.committed) throw new Finding('a success without commit');
  if (result !== undefined && !told.roots.has(result.root)) throw new Finding('a success of another root');
  if (there.length === 0) {
    if (result !== undefined && !isSink) throw new Finding('a success without its files');
    return;
  }
  const found = files.map((file) => regionOf(readFileSync(file)));
  const root = rootOf(found);
  if (!told.roots.has(root.toString('hex'))) throw new Finding('published what the sender did not claim');
  if (root.equals(rootOf(memory)) && !found.every((region, n) => bytesOf(region).equals(bytesOf(memory[n] ?? []))))
    throw new Finding('the root is that of another memory');
}

async function listen(options: ReceiveOptions): Promise<{ port: number; result: Promise<TransferResult> }> {
  return await new Promise((resolve, reject) => {
    const result = receiveMemory({
      ...options,
      listen: { host: '127.0.0.1', port: 0 },
      onEvent: (event) => {
        if (event.event === 'listening') resolve({ port: event.port, result });
      },
    });
    result.catch(reject);
  });
}

/** Writes holes where a region has nothing. */
function writeSparse(path: string, region: FakeRegion): void {
  writeFileSync(path, bytesOf(region), { mode: 0o600 });
}

/** The sender's side of one connection. */
async function speak(
  random: Random,
  peer: Peer,
  scene: Scene,
  holds: readonly FakeRegion[] | undefined,
  breaks: boolean,
  told: Told,
): Promise<void> {
  const { memory, dialect, compress, session, mischief } = scene;
  const goesWrong = (): boolean => mischief > 0 && random.oneIn(mischief);
  const breakAt = breaks ? random.below(12) : Infinity;
  let step = 0;
  /** Sends what belongs here, or something else. Returns false when the connection is over. */
  const say = async (right: WireFrame, message?: Message): Promise<boolean> => {
    if (peer.over || step++ >= breakAt) return false;
    const sound = compress === 'lz4' && right.type === Type.leaves ? compressSome(random, right) : right;
    let frames = [sound];
    if (goesWrong()) {
      frames = random.pick<() => WireFrame[]>([
        () => [],
        () => [sound, sound],
        () => [controlFrame(rightMessage(random)), sound],
        () => [message === undefined ? mutateFrame(random, sound) : mutateMessage(random, message)],
        () => [mutateFrame(random, sound)],
        () => [spoilLeaves(random, sound)],
      ])();
    }
    for (const frame of frames) await peer.send(frame, random);
    return true;
  };
  const sayMessage = (message: Message): Promise<boolean> => say(controlFrame(message), message);
  const hear = async (...kinds: string[]): ReturnType<Peer['hear']> =>
    goesWrong()
      ? undefined
      : await peer.hear([...kinds, 'abort', 'refuse'], mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS);

  peer.preamble(
    goesWrong() ? random.pick([Buffer.from('GET / HT'), Buffer.from('BALLAST\x02'), Buffer.alloc(0)]) : undefined,
  );
  const sizes = memory.map((region) => region.length * PAGE);
  if (
    !(await sayMessage({
      kind: 'hello',
      session,
      regions: sizes,
      dialect,
      compress,
      dataBytesAtMost: random.pick([0, 4096]),
      channels: 0,
      live: false,
    }))
  )
    return;
  const welcome = await hear('welcome', 'published-before');
  if (welcome?.kind === 'published-before') {
    await sayMessage({ kind: 'goodbye' });
    return;
  }

  const frames = bulkFrames(
    random,
    memory,
    goesWrong() ? random.pick(['whiteouts', 'map', 'ranges']) : dialect,
    holds,
    goesWrong,
  );
  if (goesWrong()) shuffle(random, frames);
  for (const frame of frames) if (!(await say(frame))) return;
  const root = goesWrong() ? random.bytes(32) : rootOf(memory);
  const end: Message = { kind: 'end', root, summary: summaryOf(random) };
  for (let round = 0; round < 8; round++) {
    told.roots.add(root.toString('hex'));
    if (!(await sayMessage(end))) return;
    const answer = await hear('verified', 'resend');
    if (answer?.kind !== 'resend') break;
    for (const [region, leaf] of answer.leaves) {
      const whole = leavesOf(memory[region] ?? []).find((candidate) => candidate.leaf === leaf);
      if (whole === undefined) continue;
      const frame = leavesFrame(region, [{ ...whole, sent: whole.mask }]);
      if (!(await say(goesWrong() ? spoilLeaves(random, frame) : frame))) return;
    }
  }
  told.committed = true;
  if (!(await sayMessage({ kind: 'commit' }))) return;
  if ((await hear('published')) !== undefined) await sayMessage({ kind: 'goodbye' });
}

/** The same leaves, some of them compressed, as far as they get smaller. */
function compressSome(random: Random, frame: WireFrame): WireFrame {
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

interface SentLeaf {
  readonly leaf: number;
  readonly mask: number;
  readonly sent: number;
  readonly pages: readonly Buffer[];
  readonly digest: Buffer;
}

function leavesFrame(region: number, leaves: readonly SentLeaf[]): WireFrame {
  const base = leaves[0]?.leaf ?? 0;
  const table = Buffer.alloc(leaves.length * LEAF_RECORD_SIZE);
  const pages: Buffer[] = [];
  for (const [index, { leaf, mask, sent, pages: all, digest }] of leaves.entries()) {
    const chosen = all.filter((_, n) => (sent & nthBit(mask, n)) !== 0);
    encodeLeafRecord(table, index, leaf - base, mask, sent, chosen.length * PAGE, digest);
    pages.push(...chosen);
  }
  return wireFrame(Type.leaves, Buffer.concat([table, ...pages]), { region, count: leaves.length, base });
}

/** The n-th bit that is set. */
function nthBit(mask: number, n: number): number {
  let rest = mask;
  for (let skip = n; skip > 0; skip--) rest &= rest - 1;
  return rest & -rest;
}

/** All that a right sender says between hello and end; what the other side holds may be left out. */
function bulkFrames(
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

function runsOf(pages: FakeRegion, which: (page: unknown) => boolean): [start: number, end: number][] {
  const runs: [number, number][] = [];
  for (let page = 0; page < pages.length; page++) {
    if (!which(pages[page])) continue;
    const start = page;
    while (page < pages.length && which(pages[page])) page++;
    runs.push([start, page]);
  }
  return runs;
}

function ranges(type: number, region: number, runs: readonly (readonly [number, number])[]): WireFrame[] {
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

function shuffle(random: Random, frames: WireFrame[]): void {
  for (let times = random.between(1, 3); times > 0 && frames.length > 1; times--) {
    const [taken] = frames.splice(random.below(frames.length), 1);
    if (taken !== undefined) frames.splice(random.below(frames.length + 1), 0, taken);
  }
}

/** A leaves frame that contradicts itself in ways that no checksum shows. */
function spoilLeaves(random: Random, frame: WireFrame): WireFrame {
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
