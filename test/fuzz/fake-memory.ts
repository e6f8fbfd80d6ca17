import { manifestRoot, emptyManifest, digestOf } from '@ballast/shared/integrity';
import type { Random } from './random.js';

export const PAGE = 4096;
export const LEAF = 65536;
const LEAF_PAGES = 16;

/** What the pages of one region hold: bytes, zeros that a scan finds, or nothing, taken out by the balloon. */
export type PageState = Buffer | 'zero' | 'free';
export type FakeRegion = readonly PageState[];

/** A small memory: a few regions of a few leaves, the last of each often short. */
export function fakeMemory(random: Random): FakeRegion[] {
  return Array.from({ length: random.pick([1, 1, 1, 2, 3]) }, () => {
    const region: PageState[] = [];
    const pages = random.pick([1, 2, 15, 16, 17, 32, 40, 70]);
    while (region.length < pages) {
      const kind = random.below(3);
      for (let run = random.between(1, 20); run > 0 && region.length < pages; run--)
        region.push(kind === 0 ? 'free' : kind === 1 ? 'zero' : pageOf(random));
    }
    return region;
  });
}

/** A page that is not zero, of few random numbers: cheap, and different from others. */
export function pageOf(random: Random): Buffer {
  const page = Buffer.alloc(PAGE, random.between(1, 255));
  page.writeUInt32LE(random.below(2 ** 32), 4 * random.below(1024));
  return page;
}

export function bytesOf(region: FakeRegion): Buffer {
  return Buffer.concat(region.map((page) => (page instanceof Buffer ? page : Buffer.alloc(PAGE))));
}

/** Another memory of the same shape: some pages as they are, others changed, emptied or filled. */
export function olderThan(random: Random, memory: readonly FakeRegion[]): FakeRegion[] {
  return memory.map((region) =>
    region.map((page) => (random.oneIn(3) ? random.pick<PageState>([pageOf(random), 'zero', 'free']) : page)),
  );
}

export interface FakeLeaf {
  readonly leaf: number;
  readonly mask: number;
  readonly pages: readonly Buffer[];
  readonly digest: Buffer;
}

/** The leaves of a region that hold anything. */
export function leavesOf(region: FakeRegion): FakeLeaf[] {
  const leaves: FakeLeaf[] = [];
  for (let leaf = 0; leaf * LEAF_PAGES < region.length; leaf++) {
    let mask = 0;
    const pages: Buffer[] = [];
    for (const [n, page] of region.slice(leaf * LEAF_PAGES, (leaf + 1) * LEAF_PAGES).entries()) {
      if (!(page instanceof Buffer)) continue;
      mask |= 1 << n;
      pages.push(page);
    }
    if (mask !== 0) leaves.push({ leaf, mask, pages, digest: digestOf(Buffer.concat(pages)) });
  }
  return leaves;
}

export function rootOf(memory: readonly FakeRegion[]): Buffer {
  const manifest = emptyManifest(memory.map((region) => region.length * PAGE));
  for (const [index, region] of memory.entries())
    for (const { leaf, mask, digest } of leavesOf(region)) manifest[index]?.set(leaf, mask, digest);
  return manifestRoot(manifest);
}

/** A file's bytes as a region: what is zero is zero, whoever says otherwise. */
export function regionOf(bytes: Buffer): FakeRegion {
  const zero = Buffer.alloc(PAGE);
  return Array.from({ length: bytes.length / PAGE }, (_, n) => {
    const page = bytes.subarray(n * PAGE, (n + 1) * PAGE);
    return page.equals(zero) ? 'zero' : page;
  });
}
