import { rm } from 'node:fs/promises';
import type { Contender, Measurement } from './contender.js';
import { ballastContender, type GroupPlan, MIB, SEED } from './group.js';
import { makeMemoryFile } from './memory-file.js';

const CAPS = [
  { name: '10 Mbit/s', cap: '10Mbit', bytesPerSecond: 1.25e6 },
  { name: '100 Mbit/s', cap: '100Mbit', bytesPerSecond: 12.5e6 },
  { name: '1 Gbit/s', cap: '1Gbit', bytesPerSecond: 125e6 },
  { name: '5 Gbit/s', cap: '5Gbit', bytesPerSecond: 625e6 },
  { name: '10 Gbit/s', cap: '10Gbit', bytesPerSecond: 1.25e9 },
];
/** Seconds that each is to take: the figures do not get better by waiting longer. */
const SECONDS = 3;

/** How well a cap on the bandwidth is held. */
export const bandwidthPlan: GroupPlan = {
  name: 'bandwidth',
  roomBytes: CAPS.reduce((sum, { bytesPerSecond }) => sum + SECONDS * bytesPerSecond, 0),
  async measure(bench) {
    const contenders: Contender[] = [];
    const paths: string[] = [];
    for (const { name, cap, bytesPerSecond } of CAPS) {
      // Not shrunk below what takes a while at the slowest rates.
      const data = Math.ceil((SECONDS * bytesPerSecond) / Math.min(bench.shrink, 4) / MIB) * MIB;
      const path = bench.folder.file(`${cap}.mem`);
      const source = await makeMemoryFile(path, { size: data, data, seed: SEED });
      const sendArgs = ['--bandwidth', cap];
      const sink = { leavesNothing: true, receiveArgs: ['--sink'] };
      const contender = ballastContender({ name, source, sendArgs, ...sink }, bench);
      contenders.push({ ...contender, run: async () => withCap(await contender.run(), bytesPerSecond) });
      paths.push(path);
    }
    const rows = await bench.interleave(contenders);
    for (const path of paths) await rm(path);
    return {
      title: 'A cap on the bandwidth',
      about:
        `Random bytes that take about ${SECONDS} s at each rate, over loopback into a receiver with --sink. The rate is ` +
        "all bytes on the wire by the time that the sender's `done` tells, handshake and verdict included.",
      dataBytes: 0,
      rows,
    };
  },
};

function withCap(run: Measurement, bytesPerSecond: number): Measurement {
  return { ...run, counters: { ...run.counters, capBytesPerSecond: bytesPerSecond } };
}
