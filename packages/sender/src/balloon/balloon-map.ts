import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { ExtentSet, PAGE_SIZE, readBalloonBitmap, readBalloonJson } from '@ballast/shared/memory';
import { StreamingDigest } from '@ballast/shared/integrity';
import type { MemorySource } from '../source/memory-source.js';
import { readHoles } from './holes.js';

/** Where a balloon map comes from. `region`: which memory file it speaks of; undefined for all of them. */
export type BalloonOrigin =
  | { readonly kind: 'auto' | 'none' | 'holes'; readonly region?: number }
  | { readonly kind: 'bitmap' | 'map'; readonly path: string; readonly region?: number };

/** Pages that hold nothing, one set for each region. */
export interface BalloonMap {
  readonly free: readonly ExtentSet[];
  /** BLAKE3 of the map, 32 bytes: for each region its number of runs, then the first page of each and the page after its last, u64 each. */
  readonly digest: Buffer;
}

/**
 * Reads "auto", "none", "holes", "bitmap:FILE" or "map:FILE", each with an optional "N:" before it that names the
 * memory file it belongs to, counted from 0.
 * @throws BallastError USAGE
 */
export function parseBalloonOrigin(text: string): BalloonOrigin {
  const match = /^(?:([0-9]{1,2}):)?(?:(auto|none|holes)|(bitmap|map):(.+))$/s.exec(text);
  const region = match?.[1] === undefined ? {} : { region: Number(match[1]) };
  const kind = match?.[2] ?? match?.[3];
  const path = match?.[4];
  if (kind === 'auto' || kind === 'none' || kind === 'holes') return { kind, ...region };
  if ((kind === 'bitmap' || kind === 'map') && path !== undefined) return { kind, path, ...region };
  throw new BallastError(
    ErrorCode.USAGE,
    `'${text}' is no balloon map; expected auto, none, holes, bitmap:FILE or map:FILE`,
  );
}

/**
 * Reads the balloon map from all its origins; their union counts.
 * @throws BallastError USAGE when an origin does not say which of several memory files it means; BALLOON_MAP,
 *   NOT_FOUND, BAD_FILE or READ when one cannot be used
 */
export function readBalloonMap(source: MemorySource, origins: readonly BalloonOrigin[]): BalloonMap {
  for (const origin of origins) checkRegion(origin, source.regions.length);
  const free = source.regions.map((region, index) =>
    origins
      .filter((origin) => (origin.region ?? index) === index)
      .map((origin) => {
        switch (origin.kind) {
          case 'none':
            return ExtentSet.empty;
          case 'auto':
            return holesIfKnown(region.fd, region.bytes, region.path);
          case 'holes':
            return readHoles(region.fd, region.bytes, region.path);
          case 'bitmap':
            return readBalloonBitmap(origin.path, region.bytes);
          case 'map':
            return readBalloonJson(origin.path, region.bytes);
        }
      })
      .reduce((union, extents) => union.union(extents), ExtentSet.empty),
  );
  return { free, digest: digestOfMap(free) };
}

function checkRegion(origin: BalloonOrigin, regions: number): void {
  if (origin.region !== undefined && origin.region >= regions) {
    throw new BallastError(
      ErrorCode.USAGE,
      `--balloon ${origin.region}:… names memory file ${origin.region}, but there are ${regions}, counted from 0`,
    );
  }
  if (regions > 1 && origin.region === undefined && (origin.kind === 'bitmap' || origin.kind === 'map')) {
    throw new BallastError(
      ErrorCode.USAGE,
      `--balloon ${origin.kind}:${origin.path} could mean any of ${regions} memory files; write 0:${origin.kind}:${origin.path} for the first`,
    );
  }
}

/** Losing the hole map costs speed, never the transfer. */
function holesIfKnown(fd: number, bytes: number, path: string): ExtentSet {
  try {
    return readHoles(fd, bytes, path);
  } catch (error) {
    if (error instanceof BallastError) return ExtentSet.empty;
    throw error;
  }
}

function digestOfMap(free: readonly ExtentSet[]): Buffer {
  const digest = new StreamingDigest();
  for (const extents of free) {
    const runs = new DataView(new ArrayBuffer(8 + 16 * extents.count));
    writeU64(runs, 0, extents.count);
    extents.bounds.forEach((bound, index) => {
      writeU64(runs, 8 + 8 * index, bound / PAGE_SIZE);
    });
    digest.update(new Uint8Array(runs.buffer));
  }
  return digest.finish();
}

/** Without a BigInt, which costs more than all the rest where a map has many runs. */
function writeU64(into: DataView, at: number, value: number): void {
  const high = Math.floor(value / 2 ** 32);
  into.setUint32(at, value - high * 2 ** 32, true);
  into.setUint32(at + 4, high, true);
}
