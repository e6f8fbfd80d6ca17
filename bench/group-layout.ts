import { rm } from 'node:fs/promises';
import { formatBytes } from './format.js';
import { ballastContender, GIB, type GroupPlan, MIB, peerContender, SEED } from './group.js';
import type { Spread } from './layout.js';
import { makeMemoryFile } from './memory-file.js';
import { nbdcopyOntoZeros } from './peers.js';

const SIZE = 8 * GIB;
const DATA = 512 * MIB;
const SPREADS: Readonly<Record<Spread, string>> = {
  long: 'one long run',
  scattered: 'scattered runs',
  isolated: 'isolated pages',
};

/** The row of Ballast that the others are measured against. */
export const LONG_RUN = `ballast, ${SPREADS.long}`;

/** The same bytes in one run, in scattered runs, and each page alone: what it costs that memory is in pieces. */
export const layoutPlan: GroupPlan = {
  name: 'layout',
  roomBytes: 4 * DATA,
  async measure(bench) {
    const file = { size: SIZE / bench.shrink, data: DATA / bench.shrink, seed: SEED };
    const contenders = [];
    const sources = [];
    for (const [spread, name] of Object.entries(SPREADS) as [Spread, string][]) {
      const source = await makeMemoryFile(bench.folder.file(`source-${spread}.mem`), { ...file, spread });
      sources.push(source);
      contenders.push(ballastContender({ name: `ballast, ${name}`, source }, bench));
      contenders.push(peerContender(nbdcopyOntoZeros, source, bench, `nbdcopy, ${name}`));
    }
    const zeros = await makeMemoryFile(bench.folder.file('source-zeros.mem'), { ...file, data: 0, zero: file.data });
    const nothing = await makeMemoryFile(bench.folder.file('source-nothing.mem'), { ...file, data: 0 });
    sources.push(zeros, nothing);
    contenders.push(
      ballastContender({ name: 'ballast, all zeros', source: zeros }, bench),
      ballastContender({ name: 'ballast, all free', source: nothing }, bench),
    );
    const rows = await bench.interleave(contenders);
    for (const { path } of sources) await rm(path);
    return {
      title: 'Memory in one piece and in many',
      about:
        `${formatBytes(file.data)} of data in a file of ${formatBytes(file.size)}: in one run, in scattered runs of ` +
        '4 KiB to 2 MiB, and as single pages with holes between; then as many resident zeros, and a file that is one ' +
        'hole. nbdcopy is told that the destination is zero.',
      dataBytes: file.data,
      rows,
    };
  },
};
