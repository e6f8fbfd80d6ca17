import { parentPort } from 'node:worker_threads';
import { HINT_SIZE, digestOf, pageHints } from '@ballast/shared/integrity';
import { BallastError } from '@ballast/shared/errors';
import { ExtentSet, LEAF_PAGES } from '@ballast/shared/memory';
import { LeafReader } from '../leaf-reader.js';
import { PageBatch } from '../page-batch.js';
import { positionalReads } from '../source/positional-reads.js';
import { WINDOW_LEAVES, type LeafWork, type WorkerAnswer } from './leaf-digests.js';

/*
 * The body of a thread of LeafDigester: takes windows of memory from the common cursor until there is none left, reads
 * their pages and writes what their leaves are to the shared arrays. A descriptor belongs to the process, so that every
 * thread can read from it.
 */

const batch = new PageBatch();

parentPort?.on('message', (work: LeafWork) => {
  let answer: WorkerAnswer;
  try {
    answer = { hintMs: digestWindows(work) };
  } catch (error) {
    const { code, message } = BallastError.from(error);
    answer = { error: { code, message } };
  }
  parentPort?.postMessage(answer);
});

/** @returns milliseconds that page hints took */
function digestWindows(work: LeafWork): number {
  const { windows, runs } = work;
  const cursor = new Int32Array(work.cursor);
  const masks = new Uint16Array(work.masks);
  const digests = Buffer.from(work.digests);
  const hints = work.hints === undefined ? undefined : Buffer.from(work.hints);
  const regions = work.regions.map(({ fd, path }) => positionalReads(fd, path));
  const bounds = new Float64Array(runs);
  const table = new Float64Array(windows);
  const count = table.length / 3;
  let hintMs = 0;

  for (let index = Atomics.add(cursor, 0, 1); index < count; index = Atomics.add(cursor, 0, 1)) {
    const [regionIndex = 0, firstLeaf = 0, firstRun = 0] = table.subarray(3 * index, 3 * index + 3);
    const lastRun = table[3 * index + 5] ?? bounds.length / 2;
    const region = regions[regionIndex];
    if (region === undefined) continue;
    const scan = ExtentSet.builder();
    for (let run = firstRun; run < lastRun; run++) scan.add(bounds[2 * run] ?? 0, bounds[2 * run + 1] ?? 0);
    const reader = new LeafReader(region, scan.build());
    while (!reader.done) {
      for (const { leaf, mask, at, keep } of reader.readStretch(batch.memory, 0, batch.room)) {
        const slot = index * WINDOW_LEAVES + leaf - firstLeaf;
        masks[slot] = mask;
        if (mask === 0) continue;
        const pages = batch.packAt(at, keep);
        digests.set(digestOf(pages), slot * 32);
        if (hints === undefined) continue;
        const began = performance.now();
        hints.set(pageHints(pages), slot * LEAF_PAGES * HINT_SIZE);
        hintMs += performance.now() - began;
      }
    }
  }
  return hintMs;
}
