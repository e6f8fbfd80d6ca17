import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fuzzDecoder } from './decoder-part.js';
import { heldResources, heldSince } from './held-resources.js';
import { fuzzLiveReceiver } from './live-part.js';
import { fuzzLiveSender } from './live-sender-part.js';
import { Finding, Watch, within } from './oracle.js';
import { Random } from './random.js';
import { fuzzReceiver, fuzzReceiverChannels } from './receiver-part.js';
import { fuzzSender, fuzzSenderChannels } from './sender-part.js';

export const PARTS = [
  'decoder',
  'receiver',
  'sender',
  'receiver-channels',
  'sender-channels',
  'live-receiver',
  'live-sender',
] as const;
export type Part = (typeof PARTS)[number];

export function isPart(text: string): text is Part {
  return (PARTS as readonly string[]).includes(text);
}

export interface FuzzOptions {
  readonly part: Part;
  readonly cases: number;
  readonly seed: number;
  /** Number of the first case. */
  readonly from?: number;
  /** Ends earlier after so many milliseconds. */
  readonly forMs?: number;
  readonly onProgress?: (text: string) => void;
}

export interface FuzzReport {
  readonly cases: number;
  /** How often a case ended in each way. */
  readonly tally: Readonly<Record<string, number>>;
  readonly findings: readonly { readonly seed: number; readonly index: number; readonly error: unknown }[];
}

/** One case of a part: @returns how it ended; @throws Finding */
type Run = (random: Random, folder: string) => string | Promise<string>;

const RUNS: Readonly<Record<Part, Run>> = {
  decoder: fuzzDecoder,
  receiver: fuzzReceiver,
  sender: fuzzSender,
  'receiver-channels': fuzzReceiverChannels,
  'sender-channels': fuzzSenderChannels,
  'live-receiver': fuzzLiveReceiver,
  'live-sender': fuzzLiveSender,
};
/** Cases at once: most of the time of a session is spent waiting; that of channels in starting threads, too. */
const AT_ONCE: Readonly<Record<Part, number>> = {
  decoder: 1,
  receiver: 24,
  sender: 24,
  'receiver-channels': 6,
  'sender-channels': 6,
  'live-receiver': 6,
  'live-sender': 6,
};
/** No session may take longer, whatever the peer does. */
const SESSION_LIMIT_MS = 60_000;
/** Bytes that the process may grow by over a run, once it is warm. */
const MAX_GROWTH = 400 << 20;
const MOST_FINDINGS = 5;

/** Runs cases, each of which depends on nothing but the seed and its number. */
export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const { part, cases, seed, from = 0, forMs = Infinity, onProgress } = options;
  const watch = new Watch();
  const folder = await mkdtemp(join(tmpdir(), 'ballast-fuzz-'));
  const tally: Record<string, number> = {};
  const findings: { seed: number; index: number; error: unknown }[] = [];
  const started = performance.now();
  const heldBefore = heldResources();
  let warmRss: number | undefined;
  let next = from;
  let done = 0;

  const count = (outcome: string): void => {
    tally[outcome] = (tally[outcome] ?? 0) + 1;
  };
  const one = async (index: number): Promise<void> => {
    const random = new Random(seed, index);
    try {
      const run = RUNS[part](random, join(folder, String(index)));
      count(typeof run === 'string' ? run : await within(SESSION_LIMIT_MS, `case ${index}`, run));
      watch.check();
    } catch (error) {
      findings.push({ seed, index, error });
      onProgress?.(`case ${index}: ${error instanceof Error ? error.message : String(error)}`);
    }
    done++;
    if (done === Math.floor(cases / 5)) warmRss = process.memoryUsage.rss();
    if (done % (part === 'decoder' ? 50_000 : 1000) === 0) {
      onProgress?.(`${done} cases, ${Math.round(process.memoryUsage.rss() / 2 ** 20)} MiB, ${JSON.stringify(tally)}`);
    }
  };
  const worker = async (): Promise<void> => {
    while (next < from + cases && findings.length < MOST_FINDINGS && performance.now() - started < forMs) {
      await one(next++);
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE[part] }, worker));
    const held = findings.length === 0 ? await heldSince(heldBefore) : undefined;
    if (held !== undefined) findings.push({ seed, index: from, error: new Finding(held) });
  } finally {
    watch.end();
    await rm(folder, { recursive: true, force: true });
  }
  const growth = process.memoryUsage.rss() - (warmRss ?? Infinity);
  if (growth > MAX_GROWTH) {
    findings.push({ seed, index: from, error: new Finding(`the process grew by ${growth} bytes over the run`) });
  }
  return { cases: done, tally, findings };
}
