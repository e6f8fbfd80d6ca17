import { statSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { type Programs, type Strategy, describeTransfer, transfer } from './ballast.js';
import type { Contender, Row } from './contender.js';
import type { PrivateFolder } from './folder.js';
import type { Run } from './layout.js';
import type { MemoryFile } from './memory-file.js';
import { type Peer, whyMissing } from './peers.js';
import type { TwoHosts } from './two-hosts.js';
import { verifySame } from './verify.js';
import { warmMemory } from './warm.js';

/** What is measured together, in one interleaved run. */
export interface Group {
  readonly name: GroupName;
  readonly title: string;
  /** What was measured on what, for the reader of a table. */
  readonly about: string;
  /** How to measure it again. */
  readonly command: string;
  /** Bytes of data that each row moves. */
  readonly dataBytes: number;
  readonly rows: readonly Row[];
}

export const GROUP_NAMES = [
  'peers',
  'layout',
  'ways',
  'channels',
  'strategies',
  'steps',
  'scale',
  'live',
  'compress',
  'compress-slow',
  'bandwidth',
] as const;
export type GroupName = (typeof GROUP_NAMES)[number];

/** What a group needs to measure itself. */
export interface Bench {
  readonly folder: PrivateFolder;
  readonly programs: Programs;
  /** All sizes are divided by this. */
  readonly shrink: number;
  /** Runs what is compared, in turn. */
  interleave(contenders: readonly Contender[]): Promise<Row[]>;
}

/** How one group is measured. */
export interface GroupPlan {
  readonly name: GroupName;
  /** The most that its files take at a time when nothing is shrunk. */
  readonly roomBytes: number;
  measure(bench: Bench): Promise<Omit<Group, 'name' | 'command'>>;
}

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
/** One seed for all files: two people who run the same command measure the same bytes. */
export const SEED = 20160322;

/** What a transfer by Ballast starts from and must end in. */
export interface BallastOptions {
  readonly name: string;
  readonly source: MemoryFile;
  readonly strategy?: Strategy;
  readonly balloon?: readonly string[];
  readonly sendArgs?: readonly string[];
  readonly receiveArgs?: readonly string[];
  readonly hosts?: TwoHosts;
  /** Runs that the destination must hold as zeros. */
  readonly emptied?: readonly Run[];
  /** No file is left that could be compared; the two roots still are. */
  readonly leavesNothing?: boolean;
  /** Makes the destination, where the transfer goes onto something that exists. */
  readonly prepare?: (destination: string, round: number) => Promise<void>;
}

/** Ballast's two programs, as one of those that are compared. */
export function ballastContender(options: BallastOptions, { folder, programs }: Bench): Contender {
  const { name, source, emptied, leavesNothing = false, prepare, ...rest } = options;
  const destination = folder.file('destination.mem');
  const before = allocatedBytes(source.path);
  return {
    name,
    what: describeTransfer(rest),
    async prepare(round) {
      if (!leavesNothing) await warmMemory(folder, source.residentBytes);
      await prepare?.(destination, round);
    },
    async run() {
      const result = await transfer({ source: source.path, destination, ...rest }, programs);
      const { seconds, senderPeakBytes, receiverPeakBytes, counters } = result;
      return { seconds, senderPeakBytes, receiverPeakBytes, counters, wireBytes: counters['wireBytes'] };
    },
    async verify() {
      if (!leavesNothing) await verifySame(source.path, destination, emptied);
      assertNotGrown(source, before);
    },
    cleanUp: async () => removeDestinations(folder),
  };
}

/** A peer, as one of those that are compared. */
export function peerContender(peer: Peer, source: MemoryFile, { folder }: Bench, name = peer.name): Contender {
  const destination = folder.file('destination.mem');
  const before = allocatedBytes(source.path);
  const missing = whyMissing(peer);
  return {
    name,
    what: peer.what,
    ...(missing === undefined ? {} : { missing }),
    async prepare() {
      if (peer.leavesNothing !== true) await warmMemory(folder, source.residentBytes);
    },
    run: async () => peer.run(source, destination),
    async verify() {
      if (!peer.leavesNothing) await verifySame(source.path, destination);
      assertNotGrown(source, before);
    },
    cleanUp: async () => removeDestinations(folder),
  };
}

/** Source and destination share the machine's memory: what was moved goes before the next one runs. */
async function removeDestinations(folder: PrivateFolder): Promise<void> {
  const names = (await readdir(folder.path)).filter((name) => name.startsWith('destination'));
  for (const name of names) await rm(folder.file(name), { force: true, recursive: true });
}

/** Reading a hole through a mapping allocates it; whoever does that takes memory from the host that it migrates from. */
function assertNotGrown({ path }: MemoryFile, before: number): void {
  const after = allocatedBytes(path);
  if (after > before) throw new Error(`the source grew from ${before} to ${after} allocated bytes while it was read`);
}

function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512;
}
