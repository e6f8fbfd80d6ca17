import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { makeCertificates } from './certificates.js';
import { formatBytes } from './format.js';
import { ballastContender, GIB, type BallastOptions, type GroupPlan, peerContender, SEED } from './group.js';
import { makeMemoryFile, warmDestination } from './memory-file.js';
import { iperf3, nbdcopy } from './peers.js';

const SIZE = 16 * GIB;
const DATA = 4 * GIB;
/** Up to four on any machine, more where there are as many cores. */
const MOST = Math.max(4, availableParallelism());
const CHANNELS = [1, 2, 4, 8, 16].filter((channels) => channels <= MOST);
/** Where not each step matters. */
const FEWER = [1, 4, 8].filter((channels) => channels <= MOST);

/** The row that the others are measured against. */
export const ONE_CHANNEL = 'one connection';

/** The same memory over more and more connections, to see what cores bring. */
export const channelsPlan: GroupPlan = {
  name: 'channels',
  roomBytes: 2 * DATA,
  async measure(bench) {
    const { folder, shrink } = bench;
    const file = { size: SIZE / shrink, data: DATA / shrink, seed: SEED };
    const source = await makeMemoryFile(folder.file('source.mem'), file);
    const tls = await makeCertificates(folder.file('tls'));

    const over = (
      name: string,
      channels: readonly string[],
      options: Omit<BallastOptions, 'name' | 'source'> = {},
    ): ReturnType<typeof ballastContender> =>
      ballastContender({ ...options, name, source, sendArgs: [...(options.sendArgs ?? []), ...channels] }, bench);
    const warm = { receiveArgs: ['--in-place'], prepare: warmDestination(file) };
    const secure = { sendArgs: ['--tls-dir', tls], receiveArgs: ['--tls-dir', tls] };
    const nameOf = (channels: number): string => (channels === 1 ? ONE_CHANNEL : `${channels} channels`);
    const asked = (channels: number): string[] => ['--channels', `${channels}`];
    const rows = await bench.interleave([
      ...CHANNELS.map((channels) => over(nameOf(channels), asked(channels))),
      over('as many as it chooses', []),
      ...FEWER.map((channels) => over(`warm destination, ${nameOf(channels)}`, asked(channels), warm)),
      ...FEWER.map((channels) => over(`TLS, ${nameOf(channels)}`, asked(channels), secure)),
      peerContender(nbdcopy, source, bench),
      peerContender(iperf3, source, bench),
    ]);
    await Promise.all([source.path, tls].map(async (path) => rm(path, { recursive: true })));
    return {
      title: 'More connections, more cores',
      about:
        `A file of ${formatBytes(file.size)} with ${formatBytes(file.data)} of data in scattered runs, over one ` +
        'loopback: both sides share the cores. nbdcopy has four connections and a thread for each core.',
      dataBytes: file.data,
      rows,
    };
  },
};
