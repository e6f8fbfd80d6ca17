import { fileURLToPath } from 'node:url';
import { readBalloonMap } from '@ballast/sender/balloon-map';
import { MemorySource, ReadMethod } from '@ballast/sender/memory-source';
import { digestMemory } from '@ballast/sender';
import { RangeEncoder, WhiteoutEncoder } from '@ballast/shared/protocol';
import { PAGE_SIZE } from '@ballast/shared/memory';

/** The steps that come before the first byte of data, each once in a process of its own, as a transfer takes it. */
export const STEPS = {
  /** Asks the filesystem for the balloon map. */
  holes(path: string): number {
    const source = MemorySource.open([path]);
    try {
      const began = performance.now();
      const { free } = readBalloonMap(source, [{ kind: 'holes' }]);
      const took = performance.now() - began;
      if (free[0]?.count === 0) throw new Error(`${path} has no holes`);
      return took;
    } finally {
      source.close();
    }
  },

  /** Looks at every page, and finds zeros. */
  pread: async (path: string): Promise<number> => scan(path, ReadMethod.pread),
  mmap: async (path: string): Promise<number> => scan(path, ReadMethod.mmap),

  /** Writes down that each page is free, as the mail's whiteouts do. */
  whiteouts(path: string): number {
    const pages = pagesOf(path);
    const encoder = new WhiteoutEncoder();
    const began = performance.now();
    let bytes = 0;
    for (let page = 0; page < pages;) {
      page = encoder.add(page, pages);
      bytes += encoder.take().length;
    }
    const took = performance.now() - began;
    if (bytes < pages) throw new Error(`${pages} pages made only ${bytes} bytes`);
    return took;
  },

  /** Writes down the same as one range. */
  ranges(path: string): number {
    const encoder = new RangeEncoder();
    const began = performance.now();
    encoder.add(0, pagesOf(path));
    encoder.take();
    return performance.now() - began;
  },
} as const;

export type StepName = keyof typeof STEPS;

async function scan(path: string, read: ReadMethod): Promise<number> {
  const began = performance.now();
  const { zeroBytes, memoryBytes } = await digestMemory({ files: [path], balloon: [{ kind: 'none' }], read });
  const took = performance.now() - began;
  if (zeroBytes !== memoryBytes) throw new Error(`${path} is not all zeros`);
  return took;
}

function pagesOf(path: string): number {
  const source = MemorySource.open([path]);
  source.close();
  return source.bytes / PAGE_SIZE;
}

/** `step.js STEP FILE` prints the seconds that it took. */
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , name = '', path = ''] = process.argv;
  const step = Object.entries(STEPS).find(([key]) => key === name)?.[1];
  if (step === undefined) throw new Error(`there is no step '${name}'; expected ${Object.keys(STEPS).join(', ')}`);
  console.log(String((await step(path)) / 1000));
}
