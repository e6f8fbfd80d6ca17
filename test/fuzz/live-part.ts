import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { receiveMemory, type TransferResult } from '@ballast/receiver';
import { summaryOf } from './decoder-part.js';
import { PAGE, bytesOf, fakeMemory, leavesOf, olderThan, regionOf, rootOf, type FakeRegion } from './fake-memory.js';
import { bulkFrames, leavesFrame, ranges, shuffle, spoilLeaves } from './memory-frames.js';
import { Finding, checkError } from './oracle.js';
import { Peer } from './peer.js';
import type { Random } from './random.js';
import { Type, controlFrame, wireFrame, type WireFrame } from './wire-frame.js';
import { wrongFrames } from './wrong-frames.js';

type Message = Readonly<Record<string, unknown>>;

const PATIENCE_MS = 250;
const RIGHT_PATIENCE_MS = 20_000;
const TIMEOUT_MS = 600;
const RIGHT_TIMEOUT_MS = 20_000;
const FAKE_QEMU = fileURLToPath(new URL('./fake-qemu.js', import.meta.url));
/** What its stand-in for QEMU takes as whole device state. */
const STATE_END = Buffer.from('end of state');

/** What the sender said, and what it heard of the guest. */
interface Told {
  readonly roots: Set<string>;
  committed: boolean;
  /** Whether all that it said about running was that the guest is to run. */
  alwaysRuns: boolean;
  readonly heard: Set<string>;
}

/**
 * One case: a sender that moves a guest live, right but for a few steps, against a real receiver beside a stand-in for
 * QEMU that may fail, too. The guest may run only when the sender said commit, and then on memory that it claimed; who
 * was told that it never ran there was told the truth; and a QEMU that had begun to take it in, and does not run it, is gone.
 */
export async function fuzzLiveReceiver(random: Random, folder: string): Promise<string> {
  const memory = fakeMemory(random);
  const mischief = random.pick([0, 4, 10, 25, 60]);
  mkdirSync(folder);
  const files = memory.map((_, index) => join(folder, `memory-${index}`));
  const before = random.oneIn(2)
    ? olderThan(random, memory)
    : memory.map((region) => region.map(() => 'free' as const));
  for (const [n, region] of before.entries()) writeFileSync(files[n] ?? '', bytesOf(region));
  const fault =
    mischief > 0 && random.oneIn(4)
      ? `${random.pick(['migrate-incoming', 'query-migrate', 'query-status', 'cont', 'quit', 'migrate-set-capabilities'])}:${random.pick(['refuse', 'die', 'hang-up', 'nonsense'])}`
      : 'none';

  const qemu = await startFakeQemu(folder, files, 'inmigrate', fault);
  const told: Told = { roots: new Set(), committed: false, alwaysRuns: true, heard: new Set() };
  let outcome: string;
  try {
    const { value, error } = await converse(random, { memory, mischief, monitor: qemu.monitor }, told);
    outcome = value === undefined ? checkError(error).code : 'published';
    if (value === undefined && mischief === 0) throw new Finding('a right dialogue was refused', { cause: error });
    await checkGuest({ value, files, log: qemu.log() }, told, qemu.isGone);
    const allowed = new Set([...files, qemu.monitor, qemu.logPath]);
    const stray = readdirSync(folder).find((name) => !allowed.has(join(folder, name)));
    if (stray !== undefined) throw new Finding(`a file appeared that nobody named: ${stray}`);
  } finally {
    await qemu.end();
  }
  rmSync(folder, { recursive: true });
  return outcome;
}

interface End {
  readonly value: TransferResult | undefined;
  readonly files: readonly string[];
  /** What happened to the guest. */
  readonly log: readonly string[];
}

async function checkGuest({ value, files, log }: End, told: Told, isGone: () => Promise<boolean>): Promise<void> {
  const ran = log.includes('cont');
  if (ran && !told.committed) throw new Finding('the guest runs, and nobody committed');
  if (ran && told.heard.has('never-published')) throw new Finding('the guest runs, and was said never to');
  if (value !== undefined && !told.committed) throw new Finding('a success without commit');
  const isPublished = value !== undefined || told.heard.has('published') || told.heard.has('published-before');
  if (isPublished && told.alwaysRuns && !ran) throw new Finding('the guest was said to run, and does not');
  if (ran && !log.includes('completed')) throw new Finding('the guest runs without its device state');
  if (ran && !told.roots.has(rootOf(files.map((file) => regionOf(readFileSync(file)))).toString('hex')))
    throw new Finding('the guest runs on memory that the sender did not claim');
  if (log.includes('migrate-incoming') && value === undefined && !ran && !(await isGone()))
    throw new Finding('a QEMU that had begun to take a guest in was left behind');
}

export interface FakeQemu {
  readonly monitor: string;
  readonly logPath: string;
  readonly log: () => string[];
  /** Whether it has ended, or does within a moment. */
  readonly isGone: () => Promise<boolean>;
  readonly end: () => Promise<void>;
}

export async function startFakeQemu(
  folder: string,
  files: readonly string[],
  role: 'inmigrate' | 'running',
  fault: string,
): Promise<FakeQemu> {
  const [monitor, logPath] = [join(folder, 'qmp'), join(folder, 'log')];
  const child = spawn(process.execPath, [FAKE_QEMU, monitor, logPath, role, fault, ...files], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const gone = once(child, 'exit').then(() => true);
  await Promise.race([once(child.stdout, 'data'), gone]);
  return {
    monitor,
    logPath,
    log: () => (existsSync(logPath) ? readFileSync(logPath, 'utf8').trim().split('\n') : []),
    isGone: async () => await Promise.race([gone, sleep(5000, false)]),
    async end() {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

interface Scene {
  readonly memory: readonly FakeRegion[];
  readonly mischief: number;
  readonly monitor: string;
}

async function converse(
  random: Random,
  scene: Scene,
  told: Told,
): Promise<{ value: TransferResult | undefined; error: unknown }> {
  const { mischief, monitor } = scene;
  const interruption = new AbortController();
  let listening: (port: number | undefined) => void = () => undefined;
  const port = new Promise<number | undefined>((resolve) => {
    listening = resolve;
  });
  const ending = receiveMemory({
    files: [],
    qmp: monitor,
    listen: { host: '127.0.0.1', port: 0 },
    timeoutMs: mischief === 0 ? RIGHT_TIMEOUT_MS : TIMEOUT_MS,
    signal: interruption.signal,
    onEvent: (event) => {
      if (event.event === 'listening') listening(event.port);
    },
  }).then(
    (value) => ({ value, error: undefined }),
    (error: unknown) => ({ value: undefined, error }),
  );
  const to = await Promise.race([port, ending.then(() => undefined)]);
  if (to === undefined) return await ending;

  const timer =
    mischief > 0 && random.oneIn(6)
      ? setTimeout(() => {
          interruption.abort();
        }, random.below(120))
      : undefined;
  const session = random.bytes(16);
  const connections = mischief === 0 ? 1 : random.pick([1, 1, 2]);
  for (let n = 0; n < connections; n++) {
    const peer = await Peer.connect(to);
    await moveOver(random, peer, { ...scene, session, breaks: n + 1 < connections }, told);
    peer.destroy();
    await peer.closed();
  }
  // One that committed and has no word of it comes back and asks, or does not.
  if (told.committed && told.heard.size === 0 && random.oneIn(2)) await ask(random, to, session, scene, told);
  if (mischief > 0) {
    await Promise.race([ending, sleep(random.pick([5, 50]))]);
    interruption.abort();
  }
  const end = await ending;
  clearTimeout(timer);
  return end;
}

function helloOf(session: Buffer, memory: readonly FakeRegion[]): Message {
  const regions = memory.map((region) => region.length * PAGE);
  const bytes = { regions, dataBytesAtMost: 1 };
  return { kind: 'hello', session, ...bytes, dialect: 'ranges', compress: 'none', channels: 0, live: true };
}

async function ask(random: Random, port: number, session: Buffer, { memory }: Scene, told: Told): Promise<void> {
  const peer = await Peer.connect(port);
  peer.preamble();
  await peer.send(controlFrame(helloOf(session, memory)), random);
  const answer = await peer.hear(['published-before', 'never-published', 'welcome', 'abort'], PATIENCE_MS);
  if (answer !== undefined) told.heard.add(answer.kind);
  if (answer?.kind === 'published-before') await peer.send(controlFrame({ kind: 'goodbye' }), random);
  peer.destroy();
  await peer.closed();
}

/** The sender's side of one connection. */
async function moveOver(
  random: Random,
  peer: Peer,
  { memory, mischief, session, breaks }: Scene & { readonly session: Buffer; readonly breaks: boolean },
  told: Told,
): Promise<void> {
  const goesWrong = (): boolean => mischief > 0 && random.oneIn(mischief);
  const breakAt = breaks ? random.below(16) : Infinity;
  const running = !random.oneIn(4);
  let step = 0;
  const say = async (right: WireFrame, message?: Message): Promise<boolean> => {
    if (peer.over || step++ >= breakAt) return false;
    let frames = [right];
    if (goesWrong()) {
      frames = wrongFrames(random, right, message, [
        () => [outOfTurn(random, running), right],
        () => [right, outOfTurn(random, running)],
        () => [spoilLeaves(random, right)],
      ]);
    }
    for (const frame of frames) {
      note(frame, told, running);
      await peer.send(frame, random);
    }
    return true;
  };
  const sayMessage = (message: Message): Promise<boolean> => say(controlFrame(message), message);
  const hear = async (...kinds: string[]): ReturnType<Peer['hear']> => {
    if (goesWrong()) return undefined;
    const limit = mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS;
    const message = await peer.hear([...kinds, 'never-published', 'abort', 'refuse'], limit);
    if (message?.kind === 'never-published' || message?.kind === 'published') told.heard.add(message.kind);
    return message;
  };

  peer.preamble();
  if (!(await sayMessage(helloOf(session, memory)))) return;
  await hear('welcome');
  const first = bulkFrames(random, memory, 'ranges', undefined, goesWrong);
  if (goesWrong()) shuffle(random, first);
  for (const frame of first) if (!(await say(frame))) return;

  // Rounds, each of which changes something.
  let now: readonly FakeRegion[] = memory;
  const rounds = random.pick([0, 1, 1, 2, 4]);
  for (let round = 2; round < 2 + rounds; round++) {
    if (!(await sayMessage({ kind: 'round', number: goesWrong() ? random.nasty() : round }))) return;
    await hear('received');
    const next = olderThan(random, now);
    for (const frame of changesOf(random, now, next)) if (!(await say(frame))) return;
    now = next;
  }

  const root = goesWrong() ? random.bytes(32) : rootOf(now);
  const end: Message = { kind: 'end', root, summary: summaryOf(random) };
  for (let tries = 0; tries < 8; tries++) {
    told.roots.add(root.toString('hex'));
    if (!(await sayMessage(end))) return;
    const answer = await hear('verified', 'resend');
    if (answer?.kind !== 'resend') break;
    for (const [region, leaf] of answer.leaves) {
      const whole = leavesOf(now[region] ?? []).find((candidate) => candidate.leaf === leaf);
      if (whole !== undefined && !(await say(leavesFrame(region, [{ ...whole, sent: whole.mask }])))) return;
    }
  }

  const state = [random.bytes(random.pick([0, 1, 5000, 100_000])), STATE_END];
  for (const piece of state) if (!(await say(wireFrame(Type.state, piece)))) return;
  const bytes = state.reduce((sum, piece) => sum + piece.length, 0);
  if (!(await sayMessage({ kind: 'state-end', bytes: goesWrong() ? random.nasty() : bytes, running }))) return;
  await hear('loaded');
  // A sender that has thought better of it: the guest must not run there.
  if (mischief > 0 && random.oneIn(3)) {
    if (random.oneIn(2)) await peer.send(random.pick([controlFrame({ kind: 'goodbye' }), ABORT]), random);
    await peer.ended(random.pick([0, 20, PATIENCE_MS]));
    return;
  }
  if (!(await sayMessage({ kind: 'commit' }))) return;
  if ((await hear('published'))?.kind === 'published') await sayMessage({ kind: 'goodbye' });
}

/** What is right at another moment of a move. */
function outOfTurn(random: Random, running: boolean): WireFrame {
  return random.pick<() => WireFrame>([
    () => controlFrame({ kind: 'commit' }),
    () => controlFrame({ kind: 'goodbye' }),
    () => controlFrame({ kind: 'round', number: random.between(2, 4) }),
    () => controlFrame({ kind: 'state-end', bytes: STATE_END.length, running }),
    () => wireFrame(Type.state, STATE_END),
    () => wireFrame(Type.state, random.bytes(262_144)),
  ])();
}

/** Notes what a frame tells a receiver that reads it as right, however it came to be sent. */
function note(frame: WireFrame, told: Told, running: boolean): void {
  if (frame.type !== Type.control) return;
  if (frame.payload.includes('commit')) told.committed = true;
  if (frame.payload.includes('state-end') && !(running && frame.payload.includes(RUNNING))) told.alwaysRuns = false;
}

const ABORT = controlFrame({ kind: 'abort', code: 'E_GUEST', message: 'no' });
/** As `running: true` is packed. */
const RUNNING = controlFrame({ running: true }).payload.subarray(5);

/** What a live round tells: leaves whose pages changed, which may leave out those that did not, and leaves that are empty. */
function changesOf(random: Random, before: readonly FakeRegion[], after: readonly FakeRegion[]): WireFrame[] {
  return after.flatMap((pages, region) => {
    const old = new Map(leavesOf(before[region] ?? []).map((leaf) => [leaf.leaf, leaf]));
    const frames: WireFrame[] = [];
    for (const leaf of leavesOf(pages)) {
      const known = old.get(leaf.leaf);
      old.delete(leaf.leaf);
      if (known?.digest.equals(leaf.digest) === true && known.mask === leaf.mask) continue;
      let sent = leaf.mask;
      for (let n = 0; n < 16; n++) {
        const [was, is] = [before[region]?.[leaf.leaf * 16 + n], pages[leaf.leaf * 16 + n]];
        if (was instanceof Buffer && is instanceof Buffer && was.equals(is) && random.oneIn(2)) sent &= ~(1 << n);
      }
      frames.push(leavesFrame(region, [{ ...leaf, sent }]));
    }
    const emptied = [...old.keys()].map((leaf): [number, number] => [
      leaf * 16,
      Math.min(leaf * 16 + 16, pages.length),
    ]);
    const type = random.oneIn(2) ? Type.freeRanges : Type.zeroRanges;
    return [...frames, ...emptied.flatMap((run) => ranges(type, region, [run]))];
  });
}
