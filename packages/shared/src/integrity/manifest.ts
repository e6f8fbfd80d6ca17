import { LEAF_SIZE, PAGE_SIZE } from '../memory/page.js';
import { popCount } from '../memory/page-coverage.js';
import { DIGEST_SIZE, StreamingDigest } from './digest.js';

/** What a manifest knows of one leaf. */
export interface LeafEntry {
  /** Bit n is set where page n of the leaf is not zero; 1 to 0xffff. */
  readonly mask: number;
  /** BLAKE3 of the bytes of just those pages, in order. A view: copy it to keep it. */
  readonly digest: Uint8Array;
}

/** Leaves of a block: 2 MiB of memory, so that isolated pages in a huge guest cost little and a full guest has few blocks. */
const BLOCK_LEAVES = 32;
const BLOCK_BYTES = BLOCK_LEAVES * DIGEST_SIZE;
/** u32 region, u64 leaf, u16 mask, digest. */
const ENTRY_SIZE = 4 + 8 + 2 + DIGEST_SIZE;
/** Blocks of a slab: one allocation holds this many, and the digests of 1 GiB of memory. */
const SLAB_BLOCKS = 512;

interface Slab {
  readonly masks: Uint16Array;
  readonly digests: Uint8Array;
}

/**
 * The leaves of one region that hold anything: leaf index -> (mask, digest). Sparse: a leaf of zeros has no entry, and
 * what is not there costs nothing. 34 bytes for each leaf that is there (0.05% of the data).
 */
export class RegionManifest {
  readonly bytes: number;
  /** Block index -> slot, in the order in which blocks were first used. */
  #slots = new Map<number, number>();
  #slabs: Slab[] = [];
  #entries = 0;
  #dataPages = 0;

  /** @param bytes size of the region */
  constructor(bytes: number) {
    this.bytes = bytes;
  }

  /** Number of leaves with an entry. */
  get entries(): number {
    return this.#entries;
  }

  /** Bytes of the pages that are not zero. */
  get dataBytes(): number {
    return this.#dataPages * PAGE_SIZE;
  }

  /**
   * Sets the entry of a leaf; mask 0 removes it.
   * @param digest 32 bytes, copied
   */
  set(leaf: number, mask: number, digest: Uint8Array): void {
    if (mask === 0 && !this.#slots.has(Math.floor(leaf / BLOCK_LEAVES))) return;
    const { slab, at } = this.#locate(leaf);
    const before = slab.masks[at] ?? 0;
    this.#dataPages += popCount(mask) - popCount(before);
    this.#entries += (mask === 0 ? 0 : 1) - (before === 0 ? 0 : 1);
    slab.masks[at] = mask;
    if (mask !== 0) slab.digests.set(digest, at * DIGEST_SIZE);
  }

  /** The mask of a leaf: 0 where it has no entry. */
  mask(leaf: number): number {
    const slot = this.#slots.get(Math.floor(leaf / BLOCK_LEAVES));
    if (slot === undefined) return 0;
    return this.#slab(slot).masks[(slot % SLAB_BLOCKS) * BLOCK_LEAVES + (leaf % BLOCK_LEAVES)] ?? 0;
  }

  get(leaf: number): LeafEntry | undefined {
    const slot = this.#slots.get(Math.floor(leaf / BLOCK_LEAVES));
    if (slot === undefined) return undefined;
    const slab = this.#slab(slot);
    const at = (slot % SLAB_BLOCKS) * BLOCK_LEAVES + (leaf % BLOCK_LEAVES);
    const mask = slab.masks[at] ?? 0;
    if (mask === 0) return undefined;
    return { mask, digest: slab.digests.subarray(at * DIGEST_SIZE, (at + 1) * DIGEST_SIZE) };
  }

  /** Whether the leaf's entry is exactly this one. */
  matches(leaf: number, mask: number, digest: Uint8Array): boolean {
    const entry = this.get(leaf);
    return entry !== undefined && entry.mask === mask && Buffer.compare(entry.digest, digest) === 0;
  }

  /**
   * Encodes all entries by ascending leaf, as the root covers them: u32 region, u64 leaf, u16 mask, digest. This is done
   * once in a process, perhaps while a guest stands still, and so by code that was never compiled: bytes are stored one
   * by one, as the calls of Buffer's methods would take four times as long.
   * @param region its index
   * @param take given the bytes of some entries at a time, which are valid until it returns
   */
  encodeEntries(region: number, take: (entries: Uint8Array) => void): void {
    const encoded = new Uint8Array(BLOCK_LEAVES * ENTRY_SIZE);
    const view = new DataView(encoded.buffer);
    for (let at = 0; at < encoded.length; at += ENTRY_SIZE) view.setUint32(at, region, true);
    for (const block of Float64Array.from(this.#slots.keys()).sort()) {
      const slot = this.#slots.get(block) ?? 0;
      const { masks, digests } = this.#slab(slot);
      const first = (slot % SLAB_BLOCKS) * BLOCK_LEAVES;
      let at = 0;
      for (let index = 0; index < BLOCK_LEAVES; index++) {
        const mask = masks[first + index] ?? 0;
        if (mask === 0) continue;
        const leaf = block * BLOCK_LEAVES + index;
        encoded[at + 4] = leaf;
        encoded[at + 5] = leaf >>> 8;
        encoded[at + 6] = leaf >>> 16;
        encoded[at + 7] = leaf >>> 24;
        // Offsets have 53 bits, and leaves 37.
        encoded[at + 8] = leaf / 2 ** 32;
        encoded[at + 12] = mask;
        encoded[at + 13] = mask >>> 8;
        encoded.set(digests.subarray((first + index) * DIGEST_SIZE, (first + index + 1) * DIGEST_SIZE), at + 14);
        at += ENTRY_SIZE;
      }
      if (at > 0) take(encoded.subarray(0, at));
    }
  }

  /** All entries by ascending leaf index. */
  *[Symbol.iterator](): Generator<LeafEntry & { readonly leaf: number }> {
    for (const block of [...this.#slots.keys()].sort((a, b) => a - b)) {
      for (let leaf = block * BLOCK_LEAVES; leaf < (block + 1) * BLOCK_LEAVES; leaf++) {
        const entry = this.get(leaf);
        if (entry !== undefined) yield { leaf, ...entry };
      }
    }
  }

  #slab(slot: number): Slab {
    const index = Math.floor(slot / SLAB_BLOCKS);
    let slab = this.#slabs[index];
    if (slab === undefined) {
      slab = {
        masks: new Uint16Array(SLAB_BLOCKS * BLOCK_LEAVES),
        digests: new Uint8Array(SLAB_BLOCKS * BLOCK_BYTES),
      };
      this.#slabs[index] = slab;
    }
    return slab;
  }

  #locate(leaf: number): { slab: Slab; at: number } {
    const block = Math.floor(leaf / BLOCK_LEAVES);
    let slot = this.#slots.get(block);
    if (slot === undefined) {
      slot = this.#slots.size;
      this.#slots.set(block, slot);
    }
    return { slab: this.#slab(slot), at: (slot % SLAB_BLOCKS) * BLOCK_LEAVES + (leaf % BLOCK_LEAVES) };
  }
}

/** A memory image in short: one RegionManifest for each of its regions, in order. */
export type Manifest = readonly RegionManifest[];

export function emptyManifest(regionBytes: readonly number[]): RegionManifest[] {
  return regionBytes.map((bytes) => new RegionManifest(bytes));
}

const ROOT_MAGIC = Buffer.from('ballast-manifest', 'latin1');
const ROOT_VERSION = 1;

/**
 * The root: BLAKE3 over the geometry and every entry, as docs/protocol.md defines it. Two images have the same root
 * exactly when their regions have the same sizes and read the same, free pages counted as zeros.
 * @returns 32 bytes
 */
export function manifestRoot(manifest: Manifest): Buffer {
  const digest = new StreamingDigest();
  const head = Buffer.alloc(16 + 4 * 4 + 8 * manifest.length);
  ROOT_MAGIC.copy(head);
  head.writeUInt32LE(ROOT_VERSION, 16);
  head.writeUInt32LE(PAGE_SIZE, 20);
  head.writeUInt32LE(LEAF_SIZE, 24);
  head.writeUInt32LE(manifest.length, 28);
  manifest.forEach((region, index) => head.writeBigUInt64LE(BigInt(region.bytes), 32 + 8 * index));
  digest.update(head);

  for (const [index, region] of manifest.entries()) {
    region.encodeEntries(index, (entries) => digest.update(entries));
  }
  return digest.finish();
}
