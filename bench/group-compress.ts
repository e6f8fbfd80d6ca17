import { rm, writeFile } from 'node:fs/promises';
import { Child } from './child.js';
import type { Contender } from './contender.js';
import { formatBytes } from './format.js';
import { ballastContender, type Bench, type GroupName, type GroupPlan, MIB, SEED } from './group.js';
import { makeMemoryFile, type MemoryFile } from './memory-file.js';
import { Random } from './random.js';
import { makeTwoHosts, whyNoTwoHosts } from './two-hosts.js';

const WORDS = 200;
const WAYS = ['none', 'lz4', 'zstd', 'auto'];

/** The rows that the others of their data are measured against. */
export const TEXT_AS_IT_IS = 'text, none';
export const RANDOM_AS_IT_IS = 'random, none';

/** What compression does for a link, and what it costs where there is nothing to compress. */
export const compressPlan = planFor('compress', 1000, 512 * MIB);
export const compressSlowPlan = planFor('compress-slow', 100, 64 * MIB);

function planFor(name: GroupName, megabits: number, bytes: number): GroupPlan {
  return { name, roomBytes: 3 * bytes, measure: (bench) => measure(bench, megabits, bytes / bench.shrink) };
}

async function measure(bench: Bench, megabits: number, data: number): ReturnType<GroupPlan['measure']> {
  const random = await makeMemoryFile(bench.folder.file('random.mem'), { size: data, data, seed: SEED });
  const text = await makeTextFile(bench.folder.file('text.mem'), data);
  const why = whyNoTwoHosts();
  const hosts = why === undefined ? makeTwoHosts(`${megabits}mbit`) : undefined;
  const zstdMissing = (await hasZstd(bench.programs.node)) ? undefined : 'Node.js 22.15 or newer has it';
  const way = (what: string, source: MemoryFile, compress: string): Contender => {
    const options = { name: `${what}, ${compress}`, source, leavesNothing: true, receiveArgs: ['--sink'] };
    const contender = ballastContender(
      { ...options, sendArgs: ['--compress', compress], ...(hosts === undefined ? {} : { hosts }) },
      bench,
    );
    const missing = why ?? (compress === 'zstd' ? zstdMissing : undefined);
    return missing === undefined ? contender : { ...contender, missing };
  };
  try {
    const rows = await bench.interleave([
      ...WAYS.map((compress) => way('text', text, compress)),
      ...WAYS.map((compress) => way('random', random, compress)),
    ]);
    return {
      title: `Compression over a link of ${megabits} Mbit/s`,
      about:
        `${formatBytes(data)}, all of it data: text with a vocabulary of ${WORDS} words, and random bytes. Between two ` +
        `network namespaces whose link tc holds to ${megabits} Mbit/s (tbf), into a receiver with --sink.`,
      dataBytes: data,
      rows,
    };
  } finally {
    hosts?.remove();
    await Promise.all([text, random].map(async ({ path }) => rm(path)));
  }
}

/** Whether the Node.js that runs the programs has zstd. */
async function hasZstd(node: string): Promise<boolean> {
  const { lines } = await new Child(node, ['-p', "'zstdCompressSync' in zlib"]).succeeded();
  return lines[0] === 'true';
}

/** Words in random order, no two pages alike. */
async function makeTextFile(path: string, size: number): Promise<MemoryFile> {
  const random = new Random(SEED);
  const words = Array.from({ length: WORDS }, () =>
    String.fromCharCode(...Array.from({ length: 3 + random.below(7) }, () => 97 + random.below(26))),
  );
  const text = Buffer.alloc(size);
  for (let at = 0; at < size;) at += text.write(`${words[random.below(WORDS)] ?? ''} `, at, 'latin1');
  await writeFile(path, text, { mode: 0o600, flag: 'wx' });
  const pages = size / 4096;
  const layout = { pages, runs: [{ kind: 'data' as const, start: 0, length: pages }], stale: [] };
  return { path, size, layout, dataBytes: size, residentBytes: size };
}
