import { rm } from 'node:fs/promises';
import { formatBytes } from './format.js';
import { ballastContender, GIB, type GroupPlan, peerContender, SEED } from './group.js';
import { makeMemoryFile, warmDestination } from './memory-file.js';
import { iperf3, PEERS } from './peers.js';

const SIZE = 8 * GIB;
const DATA = 2 * GIB;

/** The row that the others are measured against, and the one that is the limit. */
export const BALLAST = 'ballast';
export const LIMIT = iperf3.name;

/** Ballast beside the tools that people use, and beside the limit of the link. */
export const peersPlan: GroupPlan = {
  name: 'peers',
  roomBytes: 2 * DATA,
  async measure(bench) {
    const file = { size: SIZE / bench.shrink, data: DATA / bench.shrink, seed: SEED };
    const source = await makeMemoryFile(bench.folder.file('source.mem'), file);
    const contenders = [
      ballastContender({ name: BALLAST, source }, bench),
      ballastContender(
        { name: 'ballast, warm destination', source, receiveArgs: ['--in-place'], prepare: warmDestination(file) },
        bench,
      ),
      ballastContender({ name: 'ballast, no file', source, receiveArgs: ['--sink'], leavesNothing: true }, bench),
      ...PEERS.map((peer) => peerContender(peer, source, bench)),
    ];
    const rows = await bench.interleave(contenders);
    await rm(source.path);
    return {
      title: 'Beside other tools, and beside the limit',
      about:
        `A file of ${formatBytes(file.size)} with ${formatBytes(file.data)} of data in ${source.layout.runs.length} ` +
        'scattered runs of 4 KiB to 2 MiB, the rest holes, over one loopback. iperf3 reads and writes no file: its ' +
        'time is what the data would take at its rate.',
      dataBytes: file.data,
      rows,
    };
  },
};
