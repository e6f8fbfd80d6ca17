import { rm } from 'node:fs/promises';
import { formatBytes } from './format.js';
import { ballastContender, GIB, type GroupPlan, MIB, SEED } from './group.js';
import { makeMemoryFile } from './memory-file.js';

const DATA = 64 * MIB;
const SIZES = [1 * GIB, 16 * GIB, 128 * GIB, 1024 * GIB];

/** The row that the others are measured against. */
export const SMALLEST = formatBytes(1 * GIB);

/** The same data in ever larger guests: the cost must grow with what is resident, not with the guest. */
export const scalePlan: GroupPlan = {
  name: 'scale',
  roomBytes: (SIZES.length + 1) * DATA,
  async measure(bench) {
    // The sizes of the guests are not shrunk: they are the point, and they cost nothing.
    const data = DATA / bench.shrink;
    const sources = [];
    for (const size of SIZES) {
      const path = bench.folder.file(`source-${size / GIB}.mem`);
      sources.push(await makeMemoryFile(path, { size, data, seed: SEED }));
    }
    const contenders = sources.map((source) => ballastContender({ name: formatBytes(source.size), source }, bench));
    const rows = await bench.interleave(contenders);
    for (const { path } of sources) await rm(path);
    return {
      title: 'The same data in ever larger guests',
      about: `${formatBytes(data)} of data in scattered runs, in files of growing size.`,
      dataBytes: data,
      rows,
    };
  },
};
