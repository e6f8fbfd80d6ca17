import { LEAF_PAGES } from './page.js';

/** Pages that one block of the map below stands for: 128 MiB of memory in 4 KiB of bits. */
const BLOCK_PAGES = 32768;
const WORDS = BLOCK_PAGES / 32;

interface Block {
  words: Uint32Array;
  /** Bits that are set; at BLOCK_PAGES the block is replaced by FULL. */
  set: number;
}

/** Marks of one coverage, for another thread: which block, and its bits; none for a block that is full. */
export type CoveredBlock = readonly [index: number, words: Uint32Array | undefined];

const FULL: Block = { words: new Uint32Array(0), set: BLOCK_PAGES };

/**
 * Which pages of a region have been told about: each page of a round is either sent or released, and exactly once.
 * One bit a page where it is fragmented, next to nothing where whole blocks are told at once. A block is made for the
 * first page of it that is told, so that a peer which tells of one page in each makes all of it grow with little traffic:
 * what bounds it is the size of the memory, 2 GiB for the largest.
 */
export class PageCoverage {
  readonly pages: number;
  #blocks = new Map<number, Block>();
  #covered = 0;

  /** @param pages of the region */
  constructor(pages: number) {
    this.pages = pages;
  }

  /** Pages told about so far. */
  get covered(): number {
    return this.#covered;
  }

  get complete(): boolean {
    return this.#covered === this.pages;
  }

  /**
   * Marks the pages [start, end). Returns false, and leaves the marks undefined, when one of them was marked before or
   * lies outside the region: the caller gives up on the peer that did so.
   */
  cover(start: number, end: number): boolean {
    if (start < 0 || end > this.pages || start >= end) return false;
    for (let page = start; page < end;) {
      const index = Math.floor(page / BLOCK_PAGES);
      const from = page - index * BLOCK_PAGES;
      const to = Math.min(end - index * BLOCK_PAGES, BLOCK_PAGES);
      const block = this.#blocks.get(index);
      if (block === undefined && from === 0 && to === BLOCK_PAGES) {
        this.#blocks.set(index, FULL);
      } else if (!this.#setBits(index, block, from, to)) {
        return false;
      }
      page = index * BLOCK_PAGES + to;
    }
    this.#covered += end - start;
    return true;
  }

  /** Marks the pages of a leaf that `mask` names: bit n is page `leaf * 16 + n`. Returns false as `cover` does. */
  coverLeaf(leaf: number, mask: number): boolean {
    const first = leaf * LEAF_PAGES;
    const highest = first + 31 - Math.clz32(mask);
    if (mask === 0 || highest >= this.pages) return false;
    const index = Math.floor(first / BLOCK_PAGES);
    const block = this.#blockAt(index);
    if (block === FULL) return false;
    const bit = first - index * BLOCK_PAGES;
    const word = bit >>> 5;
    const bits = (mask << (bit & 31)) >>> 0;
    const before = block.words[word] ?? 0;
    if ((before & bits) !== 0) return false;
    block.words[word] = before | bits;
    this.#count(index, block, popCount(mask));
    this.#covered += popCount(mask);
    return true;
  }

  /** All marks, for `merge`. */
  get blocks(): CoveredBlock[] {
    return [...this.#blocks].map(([index, block]) => [index, block === FULL ? undefined : block.words]);
  }

  /**
   * Marks all pages that another coverage of the same region has marked. Returns false as `cover` does: no page may be
   * marked by both.
   */
  merge(blocks: readonly CoveredBlock[]): boolean {
    for (const [index, words] of blocks) {
      if (words === undefined) {
        if (!this.cover(index * BLOCK_PAGES, (index + 1) * BLOCK_PAGES)) return false;
        continue;
      }
      const block = this.#blockAt(index);
      if (block === FULL) return false;
      let added = 0;
      for (const [word, bits] of words.entries()) {
        const before = block.words[word] ?? 0;
        if ((before & bits) !== 0) return false;
        block.words[word] = before | bits;
        added += popCount(bits & 0xffff) + popCount(bits >>> 16);
      }
      this.#count(index, block, added);
      this.#covered += added;
    }
    return true;
  }

  /** The first page that was not told about, or undefined when all were. */
  firstUncovered(): number | undefined {
    for (let page = 0; page < this.pages;) {
      const index = Math.floor(page / BLOCK_PAGES);
      const block = this.#blocks.get(index);
      if (block === undefined) return page;
      if (block !== FULL) {
        const bit = page - index * BLOCK_PAGES;
        if (((block.words[bit >>> 5] ?? 0) & (1 << (bit & 31))) === 0) return page;
        page++;
      } else {
        page = (index + 1) * BLOCK_PAGES;
      }
    }
    return undefined;
  }

  #blockAt(index: number): Block {
    let block = this.#blocks.get(index);
    if (block === undefined) {
      block = { words: new Uint32Array(WORDS), set: 0 };
      this.#blocks.set(index, block);
    }
    return block;
  }

  #count(index: number, block: Block, added: number): void {
    block.set += added;
    if (block.set === BLOCK_PAGES) this.#blocks.set(index, FULL);
  }

  #setBits(index: number, found: Block | undefined, from: number, to: number): boolean {
    if (found === FULL) return false;
    const block = this.#blockAt(index);
    for (let bit = from; bit < to;) {
      const word = bit >>> 5;
      const low = bit & 31;
      const count = Math.min(32 - low, to - bit);
      const bits = count === 32 ? 0xffff_ffff : (((1 << count) - 1) << low) >>> 0;
      const before = block.words[word] ?? 0;
      if ((before & bits) !== 0) return false;
      block.words[word] = before | bits;
      bit += count;
    }
    this.#count(index, block, to - from);
    return true;
  }
}

/** Number of bits set in a 16-bit mask. */
export function popCount(mask: number): number {
  let bits = mask - ((mask >>> 1) & 0x5555);
  bits = (bits & 0x3333) + ((bits >>> 2) & 0x3333);
  bits = (bits + (bits >>> 4)) & 0x0f0f;
  return (bits + (bits >>> 8)) & 0x1f;
}
