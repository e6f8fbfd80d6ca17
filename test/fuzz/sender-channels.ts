import { setTimeout as sleep } from 'node:timers/promises';
import { spoilLeaves } from './memory-frames.js';
import { Peer } from './peer.js';
import { Random } from './random.js';
import { controlFrame, type WireFrame } from './wire-frame.js';
import { wrongFrames } from './wrong-frames.js';

type Message = Readonly<Record<string, unknown>>;

/** A session that was granted channels, as a sender sees it. */
export interface ChannelScene {
  readonly port: number;
  readonly session: Buffer;
  readonly granted: number;
  /** Leaves of each region. */
  readonly leaves: readonly number[];
  /** Whether the receiver holds something, and is asked what. */
  readonly holds: boolean;
  /** One in so many steps goes wrong; 0 for none. */
  readonly mischief: number;
  /** How long to wait for a word. */
  readonly patienceMs: number;
}

/**
 * Tells about memory over the channels of a session, right but for a few steps: a channel that never comes, comes twice,
 * is another one, knows another session, closes early, says what only the session's own connection may, repeats its
 * questions. Resolves when all of them are closed.
 */
export async function sendOverChannels(
  random: Random,
  frames: readonly WireFrame[],
  scene: ChannelScene,
): Promise<void> {
  const shares: WireFrame[][] = Array.from({ length: scene.granted }, () => []);
  for (const frame of frames) random.pick(shares).push(frame);
  await Promise.all(
    shares.map(async (share, index) => {
      // They run side by side, so each has numbers of its own.
      const own = new Random(random.below(2 ** 32), index);
      await Promise.all([
        speakOnChannel(own, share, index, scene),
        own.oneIn(4) ? knock(own, index, scene) : undefined,
      ]);
    }),
  );
}

/** A stranger that wants to be a channel and knows no session: no dialogue is worse for it. */
export async function knock(random: Random, index: number, { port }: ChannelScene): Promise<void> {
  const peer = await Peer.connect(port, index);
  if (random.oneIn(2)) {
    peer.preamble();
    await peer.send(controlFrame({ kind: 'join', session: random.bytes(16) }), random);
  }
  await peer.ended(random.pick([0, 5, 50]));
  peer.destroy();
  await peer.closed();
}

async function speakOnChannel(
  random: Random,
  frames: readonly WireFrame[],
  own: number,
  scene: ChannelScene,
): Promise<void> {
  const { port, session, granted, mischief, patienceMs } = scene;
  const goesWrong = (): boolean => mischief > 0 && random.oneIn(mischief);
  if (goesWrong() && random.oneIn(2)) return;
  const index = goesWrong() ? random.pick([0, granted, 15, 255]) : own;
  const peer = await Peer.connect(port, index);
  try {
    peer.preamble(
      goesWrong() ? random.pick([Buffer.from('GET / HT'), Buffer.from('BALLAST\x02'), Buffer.alloc(0)]) : undefined,
    );
    await speakOn(random, peer, frames, scene, goesWrong);
    // A second connection that knows the session, when its channel is there already.
    if (goesWrong()) await knockWith(random, session, index, scene);
    await peer.ended(patienceMs);
  } finally {
    peer.destroy();
    await peer.closed();
  }
}

async function speakOn(
  random: Random,
  peer: Peer,
  frames: readonly WireFrame[],
  { session, leaves, holds, mischief, patienceMs }: ChannelScene,
  goesWrong: () => boolean,
): Promise<void> {
  const closesAt = goesWrong() ? random.below(12) : Infinity;
  let step = 0;
  const say = async (right: WireFrame, message?: Message): Promise<boolean> => {
    if (peer.over || step++ >= closesAt) return false;
    let said = [right];
    if (goesWrong()) {
      said = wrongFrames(random, right, message, [
        () => [spoilLeaves(random, right)],
        () => [controlFrame({ kind: 'finished' }), right],
      ]);
    }
    for (const frame of said) await peer.send(frame, random);
    return true;
  };
  const sayMessage = (message: Message): Promise<boolean> => say(controlFrame(message), message);

  if (!(await sayMessage({ kind: 'join', session: goesWrong() ? random.bytes(16) : session }))) return;
  // One that does not wait to be known speaks all the same.
  if (!goesWrong()) await peer.hear(['joined', 'abort'], patienceMs);
  let asked = -1;
  let spans = 0;
  for (const frame of frames) {
    // What is held is found out for this channel when it asks, and may be left out only then.
    for (; holds && asked < frame.region; spans++) {
      asked++;
      const end = leaves[asked] ?? 0;
      const message = goesWrong()
        ? {
            kind: 'ask',
            region: random.pick([asked, 63]),
            first: random.pick([0, 1, end, end + 1]),
            end: random.nasty(),
          }
        : { kind: 'ask', region: asked, first: 0, end };
      if (!(await sayMessage(message))) return;
      if (!goesWrong()) await peer.told(spans + 1, patienceMs);
    }
    if (!(await say(frame))) return;
  }
  await sayMessage({ kind: 'finished' });
  if (mischief > 0 && random.oneIn(8)) await sleep(random.below(20));
}

/** As a stranger, but with the right token: too late, or once too often. */
export async function knockWith(random: Random, session: Buffer, index: number, { port }: ChannelScene): Promise<void> {
  const peer = await Peer.connect(port, index);
  peer.preamble();
  await peer.send(controlFrame({ kind: 'join', session }), random);
  await peer.ended(50);
  peer.destroy();
  await peer.closed();
}
