import { setImmediate } from 'node:timers/promises';
import { ExtentSet, LEAF_PAGES, LEAF_SIZE, PAGE_SIZE, popCount } from '@ballast/shared/memory';
import { readBalloonMap, type BalloonOrigin } from '../balloon/balloon-map.js';
import { aborted } from '../connect.js';
import { LeafReader } from '../leaf-reader.js';
import { PageBatch } from '../page-batch.js';
import { MemorySource, type ReadMethod, type SourceRegion } from '../source/memory-source.js';

/** What a page is, to a trial: a free page that still holds bytes makes a difference to who knows no balloon. */
export type ProfileKind = 'data' | 'zero' | 'free' | 'stale';

/** Consecutive pages of one kind. */
export interface ProfileRun {
  readonly kind: ProfileKind;
  readonly bytes: number;
}

/** What a memory is made of, in the order of its addresses, region after region. */
export interface MemoryProfile {
  readonly memoryBytes: number;
  /** Bytes of each kind. `stale` lie under the balloon and are not zero. */
  readonly bytes: Readonly<Record<ProfileKind, number>>;
  readonly runs: readonly ProfileRun[];
  /** Runs of pages that the balloon map names. */
  readonly freeRuns: number;
  /** Leaves that hold data, and those that do when stale pages count as data. */
  readonly dataLeaves: number;
  readonly dataOrStaleLeaves: number;
}

/** How fast this machine answers the questions about a memory, measured while its profile was made. */
export interface ProfileRates {
  /** Bytes a second: read and scanned, of stretches that hold data and of those that are all zeros. */
  readonly dataScanRate: number;
  readonly zeroScanRate: number;
  /** Seconds that reading the balloon map took. */
  readonly askSeconds: number;
}

export interface ProfileOptions {
  readonly files: readonly string[];
  readonly balloon: readonly BalloonOrigin[];
  readonly read?: ReadMethod;
  /** Whether free pages are looked at, too; without it none is stale as far as anyone knows. */
  readonly looksUnderBalloon: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

/** Milliseconds of reading without a pause. */
const MAX_BUSY_MS = 50;

/**
 * Reads a memory once, to know what the strategies will meet, and how fast they can find it.
 * @throws BallastError with a code of docs/errors.md
 */
export async function profileMemory(options: ProfileOptions): Promise<{ profile: MemoryProfile; rates: ProfileRates }> {
  const source = MemorySource.open(options.files, options.read);
  try {
    const asked = performance.now();
    const { free } = readBalloonMap(source, options.balloon);
    const askSeconds = (performance.now() - asked) / 1000;
    const scans = source.regions.map((region, index) =>
      (options.looksUnderBalloon ? ExtentSet.empty : (free[index] ?? ExtentSet.empty)).complement(region.bytes),
    );
    const totalBytes = scans.reduce((sum, scan) => sum + scan.bytes, 0);
    const clock: ScanClock = { dataBytes: 0, dataSeconds: 0, zeroBytes: 0, zeroSeconds: 0 };
    const regions: RegionProfile[] = [];
    for (const [index, region] of source.regions.entries()) {
      const nonZero = await findData(region, scans[index] ?? ExtentSet.empty, clock, options, totalBytes);
      regions.push(profileRegion(region.bytes, nonZero, free[index] ?? ExtentSet.empty));
    }
    return {
      profile: joined(regions),
      rates: {
        dataScanRate: rate(clock.dataBytes, clock.dataSeconds),
        zeroScanRate: rate(clock.zeroBytes, clock.zeroSeconds),
        askSeconds,
      },
    };
  } finally {
    source.close();
  }
}

interface ScanClock {
  dataBytes: number;
  dataSeconds: number;
  zeroBytes: number;
  zeroSeconds: number;
}

/** Bytes a second; Infinity, which costs nothing in a prediction, where there was nothing to measure. */
function rate(bytes: number, seconds: number): number {
  return bytes > 0 && seconds > 0 ? bytes / seconds : Infinity;
}

async function findData(
  region: SourceRegion,
  scan: ExtentSet,
  clock: ScanClock,
  { signal, onProgress }: ProfileOptions,
  totalBytes: number,
): Promise<ExtentSet> {
  const data = ExtentSet.builder();
  const batch = new PageBatch();
  const reader = new LeafReader(region.reads, scan);
  let pausedAt = performance.now();
  while (!reader.done) {
    const before = performance.now();
    const leaves = reader.readStretch(batch.memory, 0, batch.room);
    const seconds = (performance.now() - before) / 1000;
    let bytes = 0;
    let holdsData = false;
    for (const { leaf, scanned, mask } of leaves) {
      bytes += popCount(scanned) * PAGE_SIZE;
      if (mask === 0) continue;
      holdsData = true;
      for (let page = 0; page < LEAF_PAGES; page++) {
        const start = leaf * LEAF_SIZE + page * PAGE_SIZE;
        if ((mask & (1 << page)) !== 0) data.add(start, start + PAGE_SIZE);
      }
    }
    if (holdsData) {
      clock.dataBytes += bytes;
      clock.dataSeconds += seconds;
    } else {
      clock.zeroBytes += bytes;
      clock.zeroSeconds += seconds;
    }
    if (performance.now() - pausedAt > MAX_BUSY_MS) {
      onProgress(clock.dataBytes + clock.zeroBytes, totalBytes);
      await setImmediate();
      if (signal?.aborted === true) throw aborted();
      pausedAt = performance.now();
    }
  }
  region.checkSize();
  return data.build();
}

type RegionProfile = MemoryProfile;

function profileRegion(memoryBytes: number, nonZero: ExtentSet, free: ExtentSet): RegionProfile {
  const inUse = free.complement(memoryBytes);
  const kinds: Readonly<Record<ProfileKind, ExtentSet>> = {
    data: nonZero.intersect(inUse),
    zero: nonZero.complement(memoryBytes).intersect(inUse),
    free: nonZero.complement(memoryBytes).intersect(free),
    stale: nonZero.intersect(free),
  };
  const runs = (Object.keys(kinds) as ProfileKind[])
    .flatMap((kind) => [...kinds[kind]].map(({ start, end }) => ({ kind, start, bytes: end - start })))
    .sort((a, b) => a.start - b.start)
    .map(({ kind, bytes }) => ({ kind, bytes }));
  return {
    memoryBytes,
    bytes: { data: kinds.data.bytes, zero: kinds.zero.bytes, free: kinds.free.bytes, stale: kinds.stale.bytes },
    runs,
    freeRuns: free.count,
    dataLeaves: leavesOf(kinds.data),
    dataOrStaleLeaves: leavesOf(nonZero),
  };
}

/** Leaves that extents touch. */
function leavesOf(extents: ExtentSet): number {
  let leaves = 0;
  let next = 0;
  for (const { start, end } of extents) {
    const first = Math.max(Math.floor(start / LEAF_SIZE), next);
    next = Math.max(next, Math.ceil(end / LEAF_SIZE));
    leaves += Math.max(0, next - first);
  }
  return leaves;
}

function joined(regions: readonly RegionProfile[]): MemoryProfile {
  const sum = (of: (region: RegionProfile) => number): number =>
    regions.reduce((total, region) => total + of(region), 0);
  return {
    memoryBytes: sum(({ memoryBytes }) => memoryBytes),
    bytes: {
      data: sum(({ bytes }) => bytes.data),
      zero: sum(({ bytes }) => bytes.zero),
      free: sum(({ bytes }) => bytes.free),
      stale: sum(({ bytes }) => bytes.stale),
    },
    runs: regions.flatMap(({ runs }) => runs),
    freeRuns: sum(({ freeRuns }) => freeRuns),
    dataLeaves: sum(({ dataLeaves }) => dataLeaves),
    dataOrStaleLeaves: sum(({ dataOrStaleLeaves }) => dataOrStaleLeaves),
  };
}
