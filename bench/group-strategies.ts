import { rm } from 'node:fs/promises';
import { STRATEGIES } from './ballast.js';
import { formatBytes } from './format.js';
import { ballastContender, GIB, type GroupPlan, MIB, SEED } from './group.js';
import { makeMemoryFile, writeBalloonBitmap } from './memory-file.js';

/** The guest of the mail of 2016: 16 GiB, idle, 12 GiB ballooned out. */
const GUEST = { size: 16 * GIB, data: 400 * MIB, zero: 256 * MIB, balloon: 12 * GIB, stale: 64 * MIB };

/** The row that the others are measured against. */
export const DEFAULT_STRATEGY = 'bitmap';

/** The four ways to treat memory that the balloon took, on the guest of the mail. */
export const strategiesPlan: GroupPlan = {
  name: 'strategies',
  roomBytes: 2 * (GUEST.data + GUEST.zero + GUEST.stale),
  async measure(bench) {
    const [size, data, zero, balloon, stale] = [GUEST.size, GUEST.data, GUEST.zero, GUEST.balloon, GUEST.stale].map(
      (bytes) => bytes / bench.shrink,
    ) as [number, number, number, number, number];
    const source = await makeMemoryFile(bench.folder.file('source.mem'), {
      size,
      data,
      zero,
      balloon,
      stale,
      seed: SEED,
    });
    const bitmap = bench.folder.file('balloon.bitmap');
    await writeBalloonBitmap(bitmap, source.layout);
    const balloonRuns = source.layout.runs.filter(({ kind }) => kind === 'balloon');
    const contenders = STRATEGIES.map((strategy) =>
      ballastContender(
        strategy === 'unmodified'
          ? { name: strategy, source, strategy }
          : { name: strategy, source, strategy, balloon: [`bitmap:${bitmap}`, 'holes'], emptied: balloonRuns },
        bench,
      ),
    );
    const rows = await bench.interleave(contenders);
    await Promise.all([rm(source.path), rm(bitmap)]);
    return {
      title: 'The four strategies',
      about:
        `The guest of the mail: ${formatBytes(size)}, of which the balloon took ${formatBytes(balloon)} ` +
        `(${formatBytes(stale)} of it still holds stale bytes), with ${formatBytes(data)} of data and ` +
        `${formatBytes(zero)} of resident zeros; the rest was never touched. \`unmodified\` knows no balloon and sends ` +
        'the stale bytes too.',
      dataBytes: data,
      rows,
    };
  },
};
