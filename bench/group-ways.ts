import { rm, truncate } from 'node:fs/promises';
import { makeCertificates } from './certificates.js';
import { formatBytes } from './format.js';
import { ballastContender, GIB, type BallastOptions, type GroupPlan, SEED } from './group.js';
import { copySparse, makeMemoryFile, rewritePages } from './memory-file.js';
import { bareTls } from './bare-tls.js';

const SIZE = 8 * GIB;
const DATA = 1 * GIB;
const CHANGED = 0.05;

/** The row that the others are measured against. */
export const FRESH = 'one connection';
/** What TLS alone costs. */
export const BARE_TLS = "Node's TLS socket alone";

/** The same memory by each way that Ballast has: more connections, TLS, what is there already, an older copy. */
export const waysPlan: GroupPlan = {
  name: 'ways',
  roomBytes: 4 * DATA,
  async measure(bench) {
    const { folder, shrink } = bench;
    const file = { size: SIZE / shrink, data: DATA / shrink, seed: SEED };
    const source = await makeMemoryFile(folder.file('source.mem'), file);
    const old = folder.file('old.mem');
    await copySparse(source.path, old);
    rewritePages(old, source.layout, CHANGED, SEED + 1);
    const tls = await makeCertificates(folder.file('tls'));

    const way = (name: string, options: Omit<BallastOptions, 'name' | 'source'>): ReturnType<typeof ballastContender> =>
      ballastContender({ name, source, ...options }, bench);
    const secure = { sendArgs: ['--tls-dir', tls], receiveArgs: ['--tls-dir', tls] };
    const contenders = [
      way(FRESH, { sendArgs: ['--channels', '1'] }),
      way('two channels', { sendArgs: ['--channels', '2'] }),
      way('four channels', { sendArgs: ['--channels', '4'] }),
      way('TLS', { ...secure, sendArgs: [...secure.sendArgs, '--channels', '1'] }),
      way('TLS, two channels', { ...secure, sendArgs: [...secure.sendArgs, '--channels', '2'] }),
      bareTls(BARE_TLS, source.dataBytes, tls),
      way('resumed, half of it there', {
        sendArgs: ['--channels', '1'],
        async prepare(destination) {
          const partial = `${destination}.partial`;
          await copySparse(source.path, partial);
          await truncate(partial, source.size / 2);
        },
      }),
      way('older copy, 5 % of its pages changed', {
        sendArgs: ['--channels', '1'],
        receiveArgs: ['--reuse', old],
      }),
    ];
    const rows = await bench.interleave(contenders);
    await Promise.all([source.path, old, tls].map(async (path) => rm(path, { recursive: true })));
    return {
      title: 'One memory, many ways',
      about:
        `A file of ${formatBytes(file.size)} with ${formatBytes(file.data)} of data in scattered runs. Resumed: ` +
        'the first half of the destination is there from an earlier try. Older copy: a file in which 5 % of the pages, ' +
        `at random, are others. ${BARE_TLS} moves as many bytes between two processes, and does nothing with them.`,
      dataBytes: file.data,
      rows,
    };
  },
};
