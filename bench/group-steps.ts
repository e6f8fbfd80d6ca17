import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Child, findProgram } from './child.js';
import type { Contender } from './contender.js';
import type { PrivateFolder } from './folder.js';
import { formatBytes, formatCount } from './format.js';
import { type Bench, GIB, type GroupPlan, MIB } from './group.js';
import type { StepName } from './step.js';

/** What the balloon took of the mail's guest, and what it would scan without it. */
const MEMORY = 12 * GIB;
const PAGE = 4096;
const FEW_RUNS = 1000;
const MANY_RUNS = 131_072;
/** Milliseconds of the mail: QEMU 2016, 12 GiB. */
const MAIL = { holes: 320, scan: 1789, whiteouts: 556 };

const STEP = fileURLToPath(new URL('step.js', import.meta.url));
const KERNEL = fileURLToPath(new URL('../kernel/steps.c', import.meta.url));

/** The row that a step is measured against: the same in C, by the kernel's calls and nothing else. */
export function kernelAlone(row: string): string {
  return `${row.replace(/, the kernel alone$/, '')}, the kernel alone`;
}

/** The steps of the mail that are not the sending of data, each in a process of its own that measures itself. */
export const stepsPlan: GroupPlan = {
  name: 'steps',
  roomBytes: MEMORY + MANY_RUNS * PAGE + GIB,
  async measure(bench) {
    const { folder, shrink } = bench;
    const memory = MEMORY / shrink;
    const [few, many, zeros] = ['few.mem', 'many.mem', 'zeros.mem'].map((name) => folder.file(name)) as [
      string,
      string,
      string,
    ];
    makeIsolatedPages(few, MEMORY, FEW_RUNS);
    makeIsolatedPages(many, MEMORY, MANY_RUNS);
    makeZeros(zeros, memory);
    const kernel = await compile(folder);
    const beside = (name: string, step: StepName, path: string, counters: Record<string, number>): Contender[] => [
      stepContender(name, step, path, counters, bench),
      kernelContender(name, step, path, counters, kernel),
    ];
    const scanned = { scannedBytes: memory };
    const rows = await bench.interleave([
      ...beside(`asking, ${formatCount(FEW_RUNS)} runs`, 'holes', few, { mailMs: MAIL.holes }),
      ...beside(`asking, ${formatCount(MANY_RUNS)} runs`, 'holes', many, { mailMs: MAIL.holes }),
      ...beside('scanning', 'pread', zeros, { ...scanned, mailMs: MAIL.scan }),
      ...beside('scanning, --read mmap', 'mmap', zeros, { ...scanned, mailMs: MAIL.scan }),
      stepContender('announcing by whiteouts', 'whiteouts', few, { mailMs: MAIL.whiteouts }, bench),
      stepContender('announcing as ranges', 'ranges', few, {}, bench),
    ]);
    await Promise.all([few, many, zeros].map(async (path) => rm(path)));
    return {
      title: 'Before the data',
      about:
        `Beside the mail's figures for QEMU: asking for the balloon map of ${formatBytes(MEMORY)} in which single pages hold ` +
        `data, scanning ${formatBytes(memory)} of resident zeros, and announcing ${formatBytes(MEMORY)} as free. Each in ` +
        'a process that has done nothing before, which measures itself.',
      dataBytes: 0,
      rows,
    };
  },
};

function stepContender(
  name: string,
  step: StepName,
  path: string,
  counters: Record<string, number>,
  { programs }: Bench,
): Contender {
  return {
    name,
    what: `node bench/dist/step.js ${step} FILE`,
    run: async () => ({ seconds: await seconds(new Child(programs.node, [STEP, step, path])), counters }),
  };
}

function kernelContender(
  name: string,
  step: StepName,
  path: string,
  counters: Record<string, number>,
  kernel: string | undefined,
): Contender {
  return {
    name: kernelAlone(name),
    what: `cc -O3 -o steps bench/kernel/steps.c; steps ${step} FILE`,
    ...(kernel === undefined ? { missing: 'cc not found in PATH' } : {}),
    run: async () => ({ seconds: await seconds(new Child(kernel ?? '', [step, path])), counters }),
  };
}

/** What a step prints. */
async function seconds(child: Child): Promise<number> {
  const { lines } = await child.succeeded();
  return Number(lines[0]);
}

async function compile(folder: PrivateFolder): Promise<string | undefined> {
  if (findProgram('cc') === undefined) return undefined;
  const program = folder.file('steps');
  await new Child('cc', ['-O3', '-o', program, KERNEL]).succeeded();
  return program;
}

/** A file of which so many pages, evenly apart, hold data, and the rest is holes. */
function makeIsolatedPages(path: string, size: number, count: number): void {
  const page = Buffer.alloc(PAGE, 1);
  const apart = Math.floor(size / count / PAGE) * PAGE;
  const fd = openSync(path, 'wx', 0o600);
  try {
    ftruncateSync(fd, size);
    for (let n = 0; n < count; n++) writeSync(fd, page, 0, PAGE, n * apart + PAGE);
  } finally {
    closeSync(fd);
  }
}

function makeZeros(path: string, size: number): void {
  const zeros = Buffer.alloc(MIB);
  const fd = openSync(path, 'wx', 0o600);
  try {
    for (let done = 0; done < size; done += MIB) writeSync(fd, zeros, 0, MIB, done);
  } finally {
    closeSync(fd);
  }
}
