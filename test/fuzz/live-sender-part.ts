import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { moveGuest } from '@ballast/sender';
import { ErrorCode } from '@ballast/shared/errors';
import type { ControlMessage } from '@ballast/shared/protocol';
import { bytesOf, fakeMemory, regionOf, rootOf, type FakeRegion } from './fake-memory.js';
import { startFakeQemu, type FakeQemu } from './live-part.js';
import { Finding, checkError } from './oracle.js';
import { listenAsPeers, type Peer } from './peer.js';
import { Random } from './random.js';
import { answerChannel, holdings, leavesToResend } from './sender-part.js';
import { controlFrame, type WireFrame } from './wire-frame.js';
import { wrongFrames } from './wrong-frames.js';

type Message = Readonly<Record<string, unknown>>;

const PATIENCE_MS = 1500;
const RIGHT_PATIENCE_MS = 20_000;
const TIMEOUT_MS = 1000;
const RIGHT_TIMEOUT_MS = 20_000;

/** What the receiver said of the guest, and what the sender told it to do. */
interface Said {
  /** That it has the memory as it is, as QEMU's devices are, that the guest runs there, that it never will. */
  verified: boolean;
  loaded: boolean;
  runs: boolean;
  never: boolean;
  committed: boolean;
  finding: Finding | undefined;
}

/**
 * One case: a receiver of a running guest, right but for a few steps, and a real sender beside a stand-in for QEMU that may
 * fail, too. The guest is committed only when the true root was verified and its devices loaded; it goes on at the source
 * unless it was committed, and then only on the word that it never ran there; the move succeeds only on the word that it does.
 */
export async function fuzzLiveSender(random: Random, folder: string): Promise<string> {
  const memory = fakeMemory(random);
  const mischief = random.pick([0, 4, 8, 8, 15, 30]);
  const channels = random.pick([1, 1, 2, 3]);
  mkdirSync(folder);
  const files = memory.map((region, index) => {
    const path = join(folder, `memory-${index}`);
    writeFileSync(path, bytesOf(region));
    return path;
  });
  const fault =
    mischief > 0 && random.oneIn(4)
      ? `${random.pick(['stop', 'migrate', 'query-migrate', 'query-status', 'cont', 'migrate-set-capabilities'])}:${random.pick(['refuse', 'die', 'hang-up', 'nonsense'])}`
      : 'none';
  const said: Said = {
    ...{ verified: false, loaded: false, runs: false, never: false },
    ...{ committed: false, finding: undefined },
  };
  const record = join(folder, 'record');
  const qemu = await startFakeQemu(folder, files, 'running', fault);
  const peers = await listenAsPeers((peer) => answer(random, peer, { memory, files, mischief, channels }, said));

  const interruption = new AbortController();
  const timer =
    mischief > 0 && random.oneIn(6)
      ? setTimeout(() => {
          interruption.abort();
        }, random.below(400))
      : undefined;
  let outcome: string;
  try {
    try {
      await moveGuest({
        qmp: qemu.monitor,
        to: { host: '127.0.0.1', port: peers.port },
        record,
        channels,
        threads: 1,
        maxRounds: random.pick([1, 3, 6]),
        downtimeLimitMs: random.pick([1, 300]),
        onNoConvergence: random.pick(['switch', 'throttle']),
        timeoutMs: mischief === 0 ? RIGHT_TIMEOUT_MS : TIMEOUT_MS,
        retryMs: random.pick([0, 0, 300]),
        signal: interruption.signal,
      });
      outcome = 'published';
    } catch (error) {
      outcome = checkError(error).code;
      if (mischief === 0) throw new Finding('a right dialogue was refused', { cause: error });
    }
    clearTimeout(timer);
    await peers.close();
    checkGuest({ outcome, fault, hasRecord: existsSync(record) }, said, qemu);
  } finally {
    clearTimeout(timer);
    await peers.close();
    await qemu.end();
  }
  rmSync(folder, { recursive: true });
  return outcome;
}

function checkGuest(
  { outcome, fault, hasRecord }: { outcome: string; fault: string; hasRecord: boolean },
  said: Said,
  qemu: FakeQemu,
): void {
  if (said.finding !== undefined) throw said.finding;
  const log = qemu.log();
  const running = log.findLast((line) => line === 'stop' || line === 'cont') !== 'stop';
  const isSet = log.findLast((line) => line.startsWith('set '))?.endsWith(' 0') === false;
  if (said.committed && !(said.verified && said.loaded)) throw new Finding('a commit of what was not proved or loaded');
  if (running && said.committed && !said.never) throw new Finding('the guest runs here, and was committed');
  if (outcome === 'published') {
    if (!said.runs || !said.committed) throw new Finding('a success that nobody spoke of');
    if (running) throw new Finding('a success, and the guest runs here');
    if (hasRecord) throw new Finding('a success left a record');
  } else if (outcome === ErrorCode.UNACKNOWLEDGED) {
    if (running) throw new Finding('nobody knows, and the guest runs here');
    if (!hasRecord) throw new Finding('nobody knows, and no record tells');
  } else if (fault === 'none') {
    if (!running) throw new Finding(`the move failed (${outcome}), and the guest stands still`);
    if (hasRecord) throw new Finding('the guest goes on, and its record is left');
    if (isSet) throw new Finding('a capability is left set');
  } else if (!running && !hasRecord && !fault.endsWith('die')) {
    throw new Finding('the guest stands still, and no record tells');
  }
}

interface Scene {
  readonly memory: readonly FakeRegion[];
  readonly files: readonly string[];
  readonly mischief: number;
  readonly channels: number;
}

/** The receiver's side of one connection. */
async function answer(random: Random, peer: Peer, scene: Scene, said: Said): Promise<void> {
  const { memory, files, mischief } = scene;
  const goesWrong = (): boolean => mischief > 0 && random.oneIn(mischief);
  const say = async (right: WireFrame, message?: Message): Promise<void> => {
    let frames = [right];
    if (goesWrong())
      frames = wrongFrames(random, right, message, [
        () => [outOfTurn(random), right],
        () => [right, outOfTurn(random)],
      ]);
    for (const frame of frames) note(frame, root, said);
    for (const frame of frames) await peer.send(frame, random);
  };
  const sayMessage = (message: Message): Promise<void> => say(controlFrame(message), message);
  const hear = async (...kinds: string[]): Promise<ControlMessage | undefined> =>
    goesWrong() ? undefined : await peer.hear([...kinds, 'abort'], mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS);
  /** Of the sender's last `end`. */
  let root: Buffer | undefined;
  peer.onMessage = (message) => {
    if (message.kind === 'commit') said.committed = true;
    if (message.kind !== 'end') return;
    root = Buffer.from(message.root);
    const truth = rootOf(files.map((file) => regionOf(readFileSync(file))));
    if (!root.equals(truth)) said.finding ??= new Finding('the sender vouches for another memory than there is');
  };

  peer.preamble();
  if (scene.channels > 1) {
    await peer.opened(mischief === 0 ? RIGHT_PATIENCE_MS : PATIENCE_MS);
    if (peer.channel !== undefined) {
      const own = new Random(random.below(2 ** 32), peer.channel);
      await answerChannel(own, peer, memory, { say, sayMessage, hear, goesWrong });
      return;
    }
  }
  const hello = await hear('hello');
  if (hello?.kind === 'hello' && hello.dataBytesAtMost === 0) {
    await sayMessage(
      random.pick<Message>([
        { kind: 'never-published' },
        { kind: 'published-before', root: random.bytes(32) },
        { kind: 'welcome', holds: false, channels: 0 },
        { kind: 'refuse', code: 'E_BUSY', message: 'later' },
      ]),
    );
    await peer.ended(50);
    return;
  }
  const holds = random.oneIn(2);
  const channels = goesWrong() ? random.pick([scene.channels + 1, 16]) : random.between(0, scene.channels);
  await sayMessage({ kind: 'welcome', holds, channels: scene.channels === 1 ? 0 : Math.min(channels, 16) });
  if (holds && (scene.channels === 1 || channels === 0))
    for (const frame of holdings(random, memory, goesWrong)) await say(frame);

  // Rounds, and the memory as it stands after the stop.
  for (let messages = 0; messages < 100; messages++) {
    const message = await hear('round', 'end');
    if (peer.over || message?.kind === 'abort') return;
    if (message?.kind === 'round')
      await sayMessage({
        kind: 'received',
        round: message.number - 1,
        again: goesWrong() ? leavesToResend(random, memory, goesWrong) : [],
      });
    else if (message?.kind === 'end' && goesWrong())
      await sayMessage({ kind: 'resend', leaves: leavesToResend(random, memory, goesWrong) });
    else if (message?.kind === 'end' || goesWrong()) break;
  }
  await sayMessage({ kind: 'verified', root: goesWrong() || root === undefined ? random.bytes(32) : root });
  if ((await hear('state-end')) === undefined && peer.over) return;
  await sayMessage({ kind: 'loaded' });
  if ((await hear('commit')) === undefined && peer.over) return;
  if (mischief > 0 && random.oneIn(3)) {
    if (random.oneIn(3)) await sayMessage({ kind: 'abort', code: 'E_GUEST', message: 'no' });
    return;
  }
  await sayMessage({ kind: mischief > 0 && random.oneIn(3) ? 'never-published' : 'published' });
  await hear('goodbye');
}

/** What is right at another moment of a move. */
function outOfTurn(random: Random): WireFrame {
  return controlFrame(
    random.pick<Message>([
      { kind: 'loaded' },
      { kind: 'published' },
      { kind: 'never-published' },
      { kind: 'received', round: random.between(1, 4), again: [] },
      { kind: 'verified', root: random.bytes(32) },
    ]),
  );
}

/** Notes what a frame tells a sender that reads it as right, however it came to be sent. */
function note({ payload }: WireFrame, root: Buffer | undefined, said: Said): void {
  if (root !== undefined && payload.includes('verified') && payload.includes(root)) said.verified = true;
  if (payload.includes('loaded')) said.loaded = true;
  if (payload.includes('never-published')) said.never = true;
  else if (payload.includes('published')) said.runs = true;
}
