import { digestOf, nonZeroMask } from '@ballast/shared/integrity';
import { LEAF_PAGES, LEAF_SIZE } from '@ballast/shared/memory';
import type { ProfileRates } from './memory-profile.js';
import type { MachineRates } from './model.js';
import { MAX_WHITEOUTS, WhiteoutEncoder, decodeWhiteouts } from '@ballast/shared/protocol';

/** How fast this machine does what a transfer does with pages that are in memory already. */
export interface MachineSpeed {
  readonly hashRate: number;
  /** Bytes a second of looking for zeros in memory that is all zeros. */
  readonly memoryScanRate: number;
  readonly writeWhiteoutSeconds: number;
  readonly readWhiteoutSeconds: number;
}

/** What the model needs to know of a machine. Where a memory had nothing to measure a rate on, memory itself was. */
export function machineRates(rates: ProfileRates, speed: MachineSpeed, cpuSecondsPerByte: number): MachineRates {
  const { memoryScanRate, ...others } = speed;
  return {
    dataScanRate: Number.isFinite(rates.dataScanRate) ? rates.dataScanRate : memoryScanRate,
    zeroScanRate: Number.isFinite(rates.zeroScanRate) ? rates.zeroScanRate : memoryScanRate,
    askSeconds: rates.askSeconds,
    cpuSecondsPerByte,
    ...others,
  };
}

/** Each figure is the best of so many tries of so many milliseconds: what else the machine does only makes it worse. */
const TRIES = 12;
const TRY_MS = 4;

export function calibrate(): MachineSpeed {
  // Several leaves, so that no more of them is in the cache than in a transfer.
  const leaves = Buffer.alloc(16 * LEAF_SIZE, 0xa5);
  const zeros = Buffer.alloc(16 * LEAF_SIZE);
  const hashSeconds = secondsOf((n) => digestOf(leaves.subarray((n % 16) * LEAF_SIZE, ((n % 16) + 1) * LEAF_SIZE)));
  const scanSeconds = secondsOf((n) => nonZeroMask(zeros, (n % 16) * LEAF_SIZE, LEAF_PAGES));
  const encoder = new WhiteoutEncoder();
  let payload: Buffer = Buffer.alloc(0);
  const writeSeconds = secondsOf(() => {
    encoder.add(0, MAX_WHITEOUTS);
    payload = encoder.take();
  });
  const readSeconds = secondsOf(() => [...decodeWhiteouts(payload, MAX_WHITEOUTS, MAX_WHITEOUTS)]);
  return {
    hashRate: LEAF_SIZE / hashSeconds,
    memoryScanRate: LEAF_SIZE / scanSeconds,
    writeWhiteoutSeconds: writeSeconds / MAX_WHITEOUTS,
    readWhiteoutSeconds: readSeconds / MAX_WHITEOUTS,
  };
}

/** Seconds of one call, once the code is warm. */
function secondsOf(work: (n: number) => unknown): number {
  for (let n = 0; n < 50; n++) work(n);
  let best = Infinity;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const started = performance.now();
    let calls = 0;
    while (performance.now() - started < TRY_MS) work(calls++);
    best = Math.min(best, (performance.now() - started) / 1000 / calls);
  }
  return best;
}
