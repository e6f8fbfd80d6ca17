import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sendMemory } from '@ballast/sender';
import { pageHints } from '@ballast/shared/integrity';
import { HoldingsEncoder, type ControlMessage } from '@ballast/shared/protocol';
import { PAGE, bytesOf, fakeMemory, leavesOf, olderThan, rootOf, type FakeRegion } from './fake-memory.js';
import { Finding, checkError } from './oracle.js';
import { listenAsPeers, type Peer } from './peer.js';
import { Random } from './random.js';
import { Type, controlFrame, wireFrame, type WireFrame } from './wire-frame.js';
import { wrongFrames } from './wrong-frames.js';

type Message = Readonly<Record<string, unknown>>;

/** How long the fake receiver waits for a word, in a dialogue that goes wrong and in one that has to end well. */
const PATIENCE_MS = 250;
const RIGHT_PATIENCE_MS = 20_000;
/** The timeout of the real side: short where something may go missing, and no matter of a busy machine where nothing does. */
const TIMEOUT_MS = 400;
const RIGHT_TIMEOUT_MS = 20_000;
/** Starting the threads of channels takes its time on a busy machine. */
const CHANNEL_TIMEOUT_MS = 1000;

/** What the fake receiver did that makes a success a right one. */
interface Said {
  /** Whether it said that it had verified the root of the real memory, and then that it published. */
  verified: boolean;
  published: boolean;
}

/**
 * One case: a receiver whose dialogue is right but for a few steps, against a real sender. The sender may only succeed
 * when the receiver had verified the true root and said that it published; and its files are never changed.
 */
export async function fuzzSender(random: Random, folder: string): Promise<string> {
  return await senderCase(random, folder, 0);
}

/** The same with a sender that asks for channels, each of which the receiver may treat in its own way. */
export async function fuzzSenderChannels(random: Random, folder: string): Promise<string> {
  return await senderCase(random, folder, random.pick([2, 2, 3, 4]));
}

/** @param channels that the sender asks for; 0: none */
async function senderCase(random: Random, folder: string, channels: number): Promise<string> {
  const memory = fakeMemory(random);
  const mischief = random.pick([0, 3, 6, 6, 15]);
  mkdirSync(folder);
  const files = memory.map((region, index) => {
    const path = join(folder, `memory-${index}`);
    writeFileSync(path, bytesOf(region));
    return path;
  });
  const root = rootOf(memory);
  const said: Said = { verified: false, published: false };

  const peers = await listenAsPeers((peer) => answer(random, peer, { memory, root, mischief, channels }, said));

  let outcome: string;
  try {
    const result = await sendMemory({
      files,
      to: { host: '127.0.0.1', port: peers.port },
      strategy: random.pick(['unmodified', 'consult', 'skip', 'bitmap']),
      timeoutMs: mischief === 0 ? RIGHT_TIMEOUT_MS : channels > 0 ? CHANNEL_TIMEOUT_MS : TIMEOUT_MS,
      channels: Math.max(channels, 1),
      retryMs: random.pick([0, 0, 300]),
    });
    outcome = 'published';
    if (!said.verified || !said.published) throw new Finding('a success that the receiver never spoke of');
    if (result.root !== root.toString('hex')) throw new Finding('a success of another root');
  } catch (error) {
    if (error instanceof Finding) throw error;
    outcome = checkError(error).code;
    if (mischief === 0) throw new Finding('a right dialogue was refused', { cause: error });
  } finally {
    await peers.close();
  }
  for (const [n, region] of memory.entries())
    if (!readFileSync(files[n] ?? '').equals(bytesOf(region))) throw new Finding('the source was changed');
  rmSync(folder, { recursive: true });
  return outcome;
}

interface Scene {
  readonly memory: readonly FakeRegion[];
  readonly root: Buffer;
  readonly mischief: number;
  /** Connections that the sender asks for beside its own. */
  readonly channels: number;
}

/** The receiver's side of one connection. */
async function answer(random: Random, peer: Peer, scene: Scene, said: Said): Promise<void> {
  const { memory, root, mischief } = scene;
  const goesWrong = (): boolean => mischief > 0 && random.oneIn(mischief);
  const say = async (right: WireFrame, message?: Message): Promise<void> => {
    let frames = [right];
    if (goesWrong()) {
      frames = wrongFrames(random, right, message, [() => [...holdings(random, memory, goesWrong), right]]);
    }
    // What goes wrong may still be the right word in another form: it counts as said.
    for (const frame of frames) note(frame, root, said);
    for (const frame of frames) await peer.send(frame, random);
  };
  const sayMessage = (message: Message): Promise<void> => say(controlFrame(message), message);
  const hear = async (...kinds: string[]): Promise<ControlMessage | undefined> =>
    goesWrong() ? undefined : await peer.hear([...kinds, 'abort'], mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS);

  peer.preamble(
    goesWrong() ? random.pick([Buffer.from('HTTP/1.1'), Buffer.from('BALLAST\x02'), Buffer.alloc(0)]) : undefined,
  );
  if (scene.channels > 0) {
    await peer.opened(mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS);
    if (peer.channel !== undefined) {
      await answerChannel(new Random(random.below(2 ** 32)), peer, memory, { say, sayMessage, hear, goesWrong });
      return;
    }
  }
  await hear('hello');
  const holds = random.oneIn(2);
  let granted = 0;
  if (goesWrong()) await sayMessage({ kind: 'published-before', root: random.oneIn(2) ? root : random.bytes(32) });
  else {
    const channels = goesWrong() ? random.pick([scene.channels + 1, 16, 1]) : random.between(0, scene.channels);
    granted = channels;
    await sayMessage({ kind: 'welcome', holds, channels });
  }
  // Where channels carry the memory, what is held is told on them.
  if (granted > 0 ? goesWrong() : holds !== goesWrong()) {
    const frames = holdings(random, memory, goesWrong);
    if (goesWrong()) frames.splice(random.below(frames.length), 1);
    for (const frame of frames) await say(frame);
  }
  // A receiver that never stops asking for leaves again is no right one.
  for (let round = random.pick(mischief === 0 ? [0, 0, 1, 2] : [0, 0, 1, 2, 70]); round > 0; round--) {
    if ((await hear('end')) === undefined && peer.over) return;
    await sayMessage({ kind: 'resend', leaves: leavesToResend(random, memory, goesWrong) });
  }
  if ((await hear('end')) === undefined && peer.over) return;
  await sayMessage({ kind: 'verified', root: goesWrong() ? random.bytes(32) : root });
  if ((await hear('commit')) === undefined && peer.over) return;
  await sayMessage({ kind: 'published' });
  await hear('goodbye');
}

/** Notes what a frame tells a sender that reads it as right, however it came to be sent. */
function note(frame: WireFrame, root: Buffer, said: Said): void {
  if (frame.type !== Type.control) return;
  const { payload } = frame;
  if (payload.includes('verified') && payload.includes(root)) said.verified = true;
  if (payload.includes('published')) said.published = true;
}

export function leavesToResend(
  random: Random,
  memory: readonly FakeRegion[],
  goesWrong: () => boolean,
): [number, number][] {
  const count = random.pick([1, 1, 2, 5]);
  return Array.from({ length: count }, (): [number, number] => {
    const region = goesWrong() ? random.pick([0, 63, 64, random.nasty()]) : random.below(memory.length);
    const leaf = goesWrong() ? random.nasty() : random.below(Math.ceil((memory[region]?.length ?? 1) / 16));
    return [Math.min(region, Number.MAX_SAFE_INTEGER), Math.min(leaf, Number.MAX_SAFE_INTEGER)];
  });
}

/** How the side of a connection speaks and hears: mostly as it should. */
export interface Manners {
  readonly say: (right: WireFrame) => Promise<void>;
  readonly sayMessage: (message: Message) => Promise<void>;
  readonly hear: (...kinds: string[]) => Promise<ControlMessage | undefined>;
  readonly goesWrong: () => boolean;
}

/** The receiver's side of a channel: it answers what the sender asks until that has finished. */
export async function answerChannel(
  random: Random,
  peer: Peer,
  memory: readonly FakeRegion[],
  { say, sayMessage, hear, goesWrong }: Manners,
): Promise<void> {
  if (!goesWrong()) await hear('join');
  await sayMessage({ kind: 'joined' });
  const older = olderThan(random, memory);
  for (;;) {
    const message = await hear('ask', 'finished');
    if (message?.kind !== 'ask') {
      if (message !== undefined || peer.over) return;
      // It went wrong here, or there: the sender is left waiting now and then.
      if (goesWrong()) return;
      continue;
    }
    const { region, first, end } = message;
    const frames = holdingsOf(random, older[region] ?? [], region, { first, end }, goesWrong);
    if (goesWrong()) frames.splice(random.below(frames.length), 1);
    for (const frame of frames) await say(frame);
  }
}

/** What a receiver with an older copy tells: right, or with wrong hints and digests, which must cost nothing but bytes. */
export function holdings(random: Random, memory: readonly FakeRegion[], goesWrong: () => boolean): WireFrame[] {
  return olderThan(random, memory).flatMap((pages, region) => {
    const all = { first: 0, end: Math.ceil((pages.length * PAGE) / 65536) };
    return holdingsOf(random, pages, region, all, goesWrong);
  });
}

/** The same of some leaves of one region. */
function holdingsOf(
  random: Random,
  pages: FakeRegion,
  region: number,
  { first, end }: { readonly first: number; readonly end: number },
  goesWrong: () => boolean,
): WireFrame[] {
  const frames: WireFrame[] = [];
  const encoder = new HoldingsEncoder();
  const flush = (): void => {
    const { count, base } = encoder;
    if (count > 0) frames.push(wireFrame(Type.holdings, encoder.take(), { region, count, base }));
  };
  for (const { leaf, mask, pages: held, digest } of leavesOf(pages)) {
    if (leaf < first || leaf >= end) continue;
    const hints = pageHints(Buffer.concat(held));
    if (goesWrong()) random.bytes(8).copy(hints);
    encoder.add({ leaf, mask, digest: goesWrong() ? random.bytes(32) : digest, hints });
    if (random.oneIn(3)) flush();
  }
  flush();
  frames.push(wireFrame(Type.holdings, Buffer.alloc(0), { region, base: end }));
  return frames;
}
