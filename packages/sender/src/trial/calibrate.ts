import { digestOf, nonZeroMask } from '@ballast/shared/integrity';
import { LEAF_PAGES, LEAF_SIZE } from '@ballast/shared/memory';
import type { ProfileRates } from './memory-profile.js';
import type { MachineRates } from './model.js';
import { MAX_WHITEOUTS, WhiteoutEncoder, decodeWhiteouts } from '@ballast/shared/protocol';

/** How fast this machine does what a transfer does with pages that are in memory already. */
export interface MachineSpeed {
  readonly hashRate: number;
  readonly writeWhiteoutSeconds: number;
  readonly readWhiteoutSeconds: number;
}

/**
 * What the model needs to know of a machine. Where a memory had nothing to measure a rate on, it is that of the rest of
 * it, and of this machine's memory where nobody has read any.
 */
export function machineRates(rates: ProfileRates, speed: MachineSpeed, cpuSecondsPerByte: number): MachineRates {
  const known = [rates.dataScanRate, rates.zeroScanRate].find(Number.isFinite) ?? memoryScanRate();
  return {
    dataScanRate: Number.isFinite(rates.dataScanRate) ? rates.dataScanRate : known,
    zeroScanRate: Number.isFinite(rates.zeroScanRate) ? rates.zeroScanRate : known,
    askSeconds: rates.askSeconds,
    cpuSecondsPerByte,
    ...speed,
  };
}

/** Each figure is the best of so many tries of so many milliseconds: what else the machine does only makes it worse. */
const TRIES = 12;
const TRY_MS = 4;

export function calibrate(): MachineSpeed {
  // Several leaves, so that no more of them is in the cache than in a transfer.
  const leaves = Buffer.alloc(16 * LEAF_SIZE, 0xa5);
  const hashSeconds = secondsOf((n) => digestOf(leaves.subarray((n % 16) * LEAF_SIZE, ((n % 16) + 1) * LEAF_SIZE)));
  const encoder = new WhiteoutEncoder();
  let payload: Buffer = Buffer.alloc(0);
  const writeSeconds = secondsOf(() => {
    encoder.add(0, MAX_WHITEOUTS);
    payload = encoder.take();
  });
  const readSeconds = secondsOf(() => [...decodeWhiteouts(payload, MAX_WHITEOUTS, MAX_WHITEOUTS)]);
  return {
    hashRate: LEAF_SIZE / hashSeconds,
    writeWhiteoutSeconds: writeSeconds / MAX_WHITEOUTS,
    readWhiteoutSeconds: readSeconds / MAX_WHITEOUTS,
  };
}

/** Bytes that are more than the caches of a core, so that they come from where a guest's memory does. */
const SCANNED_BYTES = 64 << 20;
const SCANS = 3;

/**
 * Bytes a second at which empty memory is read and scanned: copied leaf by leaf, as reading a file does, before each leaf
 * is looked at. The best of a few times.
 */
function memoryScanRate(): number {
  // Written, lest every page of it were the one page of zeros that the kernel has.
  const memory = Buffer.allocUnsafeSlow(SCANNED_BYTES).fill(0);
  const leaf = Buffer.alloc(LEAF_SIZE);
  let best = Infinity;
  for (let scan = 0; scan < SCANS; scan++) {
    const started = performance.now();
    for (let at = 0; at < memory.length; at += LEAF_SIZE) {
      memory.copy(leaf, 0, at, at + LEAF_SIZE);
      nonZeroMask(leaf, 0, LEAF_PAGES);
    }
    best = Math.min(best, (performance.now() - started) / 1000);
  }
  return SCANNED_BYTES / best;
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
