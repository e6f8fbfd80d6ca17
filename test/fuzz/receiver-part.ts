import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { receiveMemory, type ReceiveOptions, type TransferResult } from '@ballast/receiver';
import { summaryOf } from './decoder-part.js';
import { PAGE, bytesOf, fakeMemory, leavesOf, olderThan, regionOf, rootOf, type FakeRegion } from './fake-memory.js';
import { bulkFrames, compressSome, leavesFrame, shuffle, spoilLeaves, type DialectName } from './memory-frames.js';
import { Finding, checkError } from './oracle.js';
import { Peer } from './peer.js';
import type { Random } from './random.js';
import { knockWith, sendOverChannels, type ChannelScene } from './sender-channels.js';
import { Type, controlFrame, type WireFrame } from './wire-frame.js';
import { wrongFrames } from './wrong-frames.js';

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
/** Starting the threads of channels takes its time on a busy machine. */
const CHANNEL_TIMEOUT_MS = 1000;

/** What one case is: fixed before it begins, so that a seed tells it again. */
interface Scene {
  readonly memory: readonly FakeRegion[];
  readonly dialect: DialectName;
  readonly compress: 'none' | 'lz4';
  readonly session: Buffer;
  /** One in so many steps goes wrong; 0 for none. */
  readonly mischief: number;
  /** Connections that the sender asks for beside its own. */
  readonly channels: number;
}

/**
 * One case: a sender whose dialogue is right but for a few steps, against a real receiver. A file that gets its name
 * must be what the sender's last `end` said, and the sender must have said commit.
 */
export async function fuzzReceiver(random: Random, folder: string): Promise<string> {
  return await receiverCase(random, folder, 0);
}

/** The same with a sender that tells about its memory over channels, each of which goes wrong in its own way. */
export async function fuzzReceiverChannels(random: Random, folder: string): Promise<string> {
  return await receiverCase(random, folder, random.pick([1, 2, 2, 3, 4]));
}

async function receiverCase(random: Random, folder: string, channels: number): Promise<string> {
  const scene: Scene = {
    channels,
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
    timeoutMs: scene.mischief === 0 ? RIGHT_TIMEOUT_MS : channels > 0 ? CHANNEL_TIMEOUT_MS : TIMEOUT_MS,
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
    const beside: Promise<void>[] = [];
    // Only the last connection goes to its end; those before it break somewhere.
    await speak(random, peer, { ...scene, port, beside }, n === 0 ? holds : older, n + 1 < connections, told);
    peer.destroy();
    await Promise.all([peer.closed(), ...beside]);
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

/** The sender's side of one connection. What goes on beside it, on channels, is added to `beside`. */
async function speak(
  random: Random,
  peer: Peer,
  scene: Scene & { readonly port: number; readonly beside: Promise<void>[] },
  holds: readonly FakeRegion[] | undefined,
  breaks: boolean,
  told: Told,
): Promise<void> {
  const { memory, dialect, compress, session, mischief, port, beside } = scene;
  const goesWrong = (): boolean => mischief > 0 && random.oneIn(mischief);
  const breakAt = breaks ? random.below(12) : Infinity;
  let step = 0;
  /** Sends what belongs here, or something else. Returns false when the connection is over. */
  const say = async (right: WireFrame, message?: Message): Promise<boolean> => {
    if (peer.over || step++ >= breakAt) return false;
    const sound = compress === 'lz4' && right.type === Type.leaves ? compressSome(random, right) : right;
    let frames = [sound];
    if (goesWrong()) {
      frames = wrongFrames(random, sound, message, [() => [spoilLeaves(random, sound)]]);
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
      channels: scene.channels,
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
  const granted = welcome?.kind === 'welcome' ? welcome.channels : scene.channels;
  // The balloon map comes on the session's own connection, and the rest on channels of it; or some of it on both.
  const isHere = (frame: WireFrame): boolean => granted === 0 || frame.type === Type.freeRanges || goesWrong();
  const here = scene.channels === 0 ? frames : frames.filter(isHere);
  if (granted > 0) {
    const there = frames
      .filter((frame) => frame.type !== Type.freeRanges || goesWrong())
      .map((frame) => (compress === 'lz4' && frame.type === Type.leaves ? compressSome(random, frame) : frame));
    const channelScene: ChannelScene = {
      ...{ port, session, granted, mischief },
      leaves: memory.map((region) => Math.ceil(region.length / 16)),
      holds: welcome?.kind === 'welcome' && welcome.holds,
      patienceMs: mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS,
    };
    const sending = sendOverChannels(random, there, channelScene);
    beside.push(sending);
    if (goesWrong()) beside.push(knockWith(random, session, random.below(granted), channelScene));
    for (const frame of here) if (!(await say(frame))) return;
    // The end may come before they are done, and waits for them.
    if (random.oneIn(2)) await sending;
  } else {
    for (const frame of here) if (!(await say(frame))) return;
  }
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
