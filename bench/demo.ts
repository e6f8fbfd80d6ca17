import { rm } from 'node:fs/promises';
import { stripVTControlCharacters } from 'node:util';
import { type Strategy, STRATEGIES, transfer, type TransferResult } from './ballast.js';
import { watchBystanders } from './bystanders.js';
import { describeFolder, findFolder, makePrivateFolder, type PrivateFolder } from './folder.js';
import { formatBytes, formatCount, formatSeconds } from './format.js';
import { GIB, MIB, SEED } from './group.js';
import { makeMemoryFile, type MemoryFile, type MemoryFileOptions, writeBalloonBitmap } from './memory-file.js';
import { openStage, type Stage } from './stage.js';
import { tableText } from '@ballast/shared/cli';
import { verifySame } from './verify.js';
import { warmMemory } from './warm.js';

/** A quarter of the guest of the mail, with the same share of it ballooned out. */
const GUEST = { size: 4 * GIB, data: 400 * MIB, zero: 128 * MIB, balloon: 3 * GIB, stale: 64 * MIB };
const SMALLEST_SHRINK = 64;
/** Each strategy is run this often, in turn, and its best time is shown: whatever else goes on can only add to it. */
const ROUNDS = 3;
/** Differences below this share of the time are not told from noise. */
const NOISE = 0.05;
/** Above this share of the machine, other programs blur the times. */
const DISTURBED = 0.1;

/** What the demo moves, and how the balloon's map is told to those who ask for one. */
interface Guest {
  readonly memory: MemoryFile;
  readonly bitmap: string;
  readonly options: MemoryFileOptions;
}

/** What one strategy came to. */
interface Outcome {
  readonly strategy: Strategy;
  readonly seconds: number;
  readonly result: TransferResult;
}

/** The system of the mail that each strategy is, told plainly. */
const STORIES: Readonly<Record<Strategy, string>> = {
  unmodified:
    "v1 of the mail, QEMU as it was. It knows of no balloon: it looks at every page, sends the stale bytes under the balloon as if they were the guest's, and answers each empty page with a 9-byte whiteout.",
  consult:
    'v3, is_zero_range() only. It asks the balloon first and does not look at what the balloon took, but still sends a whiteout for each of those pages: the receiver need not know the difference.',
  skip: "v2, the proposed patch. The balloon's map goes ahead once; of a page in it nothing more is said. Zero pages found by looking still cost a whiteout.",
  bitmap:
    "the reply's “and vice versa”, and the default here. Both kinds of empty pages go as ranges; there are no whiteouts.",
};

const LEGEND =
  `time: the best of ${ROUNDS}, from the start of the sending process until both have ended; wire: bytes both ways, and how ` +
  'many of them are not page contents; scanned: pages looked at; map: bytes of ranges; root: of the manifest, both sides.';

process.exitCode = await main(openStage());

async function main(stage: Stage): Promise<number> {
  let folder: PrivateFolder | undefined;
  try {
    folder = makePrivateFolder(findFolder(room(1)));
    await perform(stage, folder);
    return 0;
  } catch (error) {
    stage.say(stage.style('red', error instanceof Error ? error.message : String(error)));
    return 1;
  } finally {
    folder?.remove();
  }
}

async function perform(stage: Stage, folder: PrivateFolder): Promise<void> {
  stage.say(stage.style('bold', "Ballast: one guest's memory, moved in four ways"));
  stage.say(describeFolder(folder));
  const guest = await makeGuest(stage, folder);
  stage.say();
  const others = watchBystanders();
  const outcomes = await moveInEachWay(stage, folder, guest);
  const othersShare = others();
  stage.say();
  stage.say(comparison(outcomes));
  stage.say();
  stage.say(fill(LEGEND));
  if (othersShare > DISTURBED) {
    const percent = (othersShare * 100).toFixed(0);
    stage.say(`Other programs took ${percent} % of this machine meanwhile: the times say less than they could.`);
  }
  stage.say();
  explain(stage, outcomes, guest);
}

/** Source, one destination, and the memory under both. */
function room(shrink: number): number {
  return (2 * (GUEST.data + GUEST.zero + GUEST.stale)) / shrink;
}

async function makeGuest(stage: Stage, folder: PrivateFolder): Promise<Guest> {
  let shrink = 1;
  while (room(shrink) > folder.roomBytes) shrink *= 2;
  if (shrink > SMALLEST_SHRINK) {
    throw new Error(
      `${formatBytes(folder.roomBytes)} of room is too little; expected ${formatBytes(room(SMALLEST_SHRINK))}`,
    );
  }
  if (shrink > 1) stage.say(`There is little room: the guest is ${shrink} times smaller than usual.`);
  const options = {
    size: GUEST.size / shrink,
    data: GUEST.data / shrink,
    zero: GUEST.zero / shrink,
    balloon: GUEST.balloon / shrink,
    stale: GUEST.stale / shrink,
    seed: SEED,
  };
  const bitmap = folder.file('balloon.bitmap');
  const memory = await stage.during(
    "Making a guest's memory …",
    async (update) => {
      await warmMemory(folder, room(shrink));
      const onProgress = (written: number): void => {
        update(`Making a guest's memory … ${formatBytes(written)}`);
      };
      const made = await makeMemoryFile(folder.file('guest.mem'), { ...options, onProgress });
      await writeBalloonBitmap(bitmap, made.layout);
      return made;
    },
    () => describeGuest(options),
  );
  return { memory, bitmap, options };
}

function describeGuest({ size, data, zero = 0, balloon = 0, stale = 0 }: MemoryFileOptions): string {
  return (
    `A guest of ${formatBytes(size)}, ${formatBytes(balloon)} of it ballooned out: ${formatBytes(data)} of data, ` +
    `${formatBytes(zero)} of resident zeros, ${formatBytes(stale)} of stale bytes under the balloon; the rest was never touched.`
  );
}

/** Runs the strategies in turn, so that a slow moment of the machine meets them all, and compares every copy. */
async function moveInEachWay(stage: Stage, folder: PrivateFolder, guest: Guest): Promise<Outcome[]> {
  const results = new Map<Strategy, TransferResult[]>(STRATEGIES.map((strategy) => [strategy, []]));
  for (let round = 1; round <= ROUNDS; round += 1) {
    await stage.during(
      `Round ${round} of ${ROUNDS}`,
      async (update) => {
        const times: string[] = [];
        for (const strategy of STRATEGIES) {
          const progress = `Round ${round} of ${ROUNDS}: ${[...times, strategy].join(', ')}`;
          update(`${progress}, moving …`);
          const result = await move(folder, guest, strategy, () => {
            update(`${progress}, comparing …`);
          });
          results.get(strategy)?.push(result);
          times.push(`${strategy} ${formatSeconds(result.seconds)}`);
        }
        return times;
      },
      (times) => `Round ${round} of ${ROUNDS}: ${times.join(', ')}; every byte as it should be`,
    );
  }
  return [...results].flatMap(([strategy, all]) => {
    const result = all.at(-1);
    return result === undefined ? [] : [{ strategy, result, seconds: Math.min(...all.map(({ seconds }) => seconds)) }];
  });
}

/** Moves the memory between two real processes and compares what came with what was there. */
async function move(
  folder: PrivateFolder,
  { memory, bitmap }: Guest,
  strategy: Strategy,
  onMoved: () => void,
): Promise<TransferResult> {
  const destination = folder.file('moved.mem');
  const knowsBalloon = strategy !== 'unmodified';
  const balloon = knowsBalloon ? [`bitmap:${bitmap}`, 'holes'] : [];
  const result = await transfer({ source: memory.path, destination, strategy, balloon });
  onMoved();
  // Who knows the balloon must leave nothing where it was; who does not must have moved even that.
  await verifySame(
    memory.path,
    destination,
    knowsBalloon ? memory.layout.runs.filter(({ kind }) => kind === 'balloon') : [],
  );
  await rm(destination);
  return result;
}

function comparison(outcomes: readonly Outcome[]): string {
  const head = ['strategy', 'time', 'wire', 'not data', 'scanned', 'whiteouts', 'map', 'root'];
  const rows = outcomes.map(({ strategy, seconds, result: { root, counters } }) => [
    strategy,
    formatSeconds(seconds),
    formatBytes(counters['wireBytes'] ?? NaN),
    formatBytes((counters['wireBytes'] ?? NaN) - (counters['sentBytes'] ?? counters['dataBytes'] ?? NaN)),
    formatCount(counters['scannedPages'] ?? NaN),
    formatCount(counters['whiteouts'] ?? NaN),
    formatBytes(counters['mapBytes'] ?? NaN),
    root.slice(0, 8),
  ]);
  return tableText({ head, rows });
}

function explain(stage: Stage, outcomes: readonly Outcome[], { options }: Guest): void {
  stage.say('What you see, and where it stands in the mail to qemu-devel of 22 March 2016:');
  for (const { strategy } of outcomes) {
    stage.say(fill(`${stage.style('bold', strategy.padEnd(11))} ${STORIES[strategy]}`, '  ', 12));
  }
  stage.say();
  const roots = outcomes.filter(({ strategy }) => strategy !== 'unmodified').map(({ result }) => result.root);
  if (new Set(roots).size === 1) {
    const stale = formatBytes(options.stale ?? 0);
    stage.say(
      fill(
        `The root is the digest of all the memory, computed on both sides. The three that know the balloon agree on one; unmodified has another, since it moved ${stale} that nobody will ever read.`,
      ),
    );
    stage.say();
  }
  stage.say(stage.style('bold', fill(answer(outcomes))));
}

/** One sentence, from what was measured just now. */
function answer(outcomes: readonly Outcome[]): string {
  const of = (name: Strategy): Outcome | undefined => outcomes.find(({ strategy }) => strategy === name);
  const [unmodified, consult, bitmap] = [of('unmodified'), of('consult'), of('bitmap')];
  if (unmodified === undefined || consult === undefined || bitmap === undefined) return '';
  const asking = unmodified.seconds - consult.seconds;
  const announcing = consult.seconds - bitmap.seconds;
  const share = 1 - (bitmap.result.counters['wireBytes'] ?? NaN) / (consult.result.counters['wireBytes'] ?? NaN);
  const found =
    `to ask the balloon instead of looking at what it took ${effect(asking, unmodified.seconds)}, and to announce empty ` +
    `pages as ranges instead of one by one takes ${(share * 100).toFixed(1)} % off the bytes and ` +
    effect(announcing, consult.seconds);
  const verdict =
    asking > announcing
      ? 'what counts is not to look at memory that holds nothing; how it is announced counts for less'
      : 'here it counts at least as much how empty pages are announced as not to look at them';
  return `The answer: ${found}: ${verdict}.`;
}

/** A difference in time in words; small ones come and go from run to run and are not worth a figure. */
function effect(seconds: number, of: number): string {
  const share = seconds / of;
  if (Math.abs(share) < NOISE) return 'changes the time by less than the noise';
  const amount = `${formatSeconds(Math.abs(seconds))} (${(Math.abs(share) * 100).toFixed(0)} %)`;
  return share > 0 ? `saves ${amount}` : `costs ${amount}`;
}

/** Breaks a paragraph at the width of a terminal; lines after the first are indented by `hang` more. */
function fill(text: string, indent = '', hang = 0): string {
  const width = Math.min(process.stdout.columns || 100, 100);
  const lines: string[] = [];
  let line = indent;
  let empty = true;
  for (const word of text.split(' ')) {
    if (!empty && visibleLength(line) + 1 + visibleLength(word) > width) {
      lines.push(line);
      line = indent + ' '.repeat(hang);
      empty = true;
    }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  return [...lines, line].join('\n');
}

function visibleLength(text: string): number {
  return stripVTControlCharacters(text).length;
}
