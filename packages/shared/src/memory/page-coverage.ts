import { LEAF_PAGES } from './page.js';

/** Pages of one block: 128 MiB of memory. */
const BLOCK_PAGES = 32768;
const WORDS = BLOCK_PAGES / 32;
/** Runs of a block that are kept as a list, in 2 KiB; the bits of a block take 4 KiB. */
const MAX_RUNS = 256;
/** Runs of a list that is copied to grow: V8 gives one that grows in its place room for 16 more. */
const SHORT_LIST = 32;

/** Pages [start, end) of a block as one positive number: start << 16 | end. A list of them sorts by address. */
type Run = number;

interface Bits {
  readonly words: Uint32Array;
  /** Bits that are set. */
  set: number;
}

/** A block of which more is told than one run. Runs of a list ascend, and no two of them touch. */
type Part = Run[] | Bits;

/**
 * All marks of one coverage as arrays, which threads can hand to each other without a copy. As lists they would be copied
 * into the heap of the other thread, whose bound ends the process and not only the thread.
 */
export interface CoveredPages {
  /** For each block: 0 for no page, a run, or minus how many of `words` it has: WORDS of them are bits, fewer are runs. */
  readonly blocks: Int32Array;
  /** Of one block after the other. */
  readonly words: Uint32Array;
}

/**
 * Which pages of a region have been told about: each page of a round is either sent or released, and exactly once. A
 * block is one number for as long as it is one run, a list while it is a few, and one bit a page only where it is really
 * fragmented:
 *
 *       block      0            1                2                 3
 *              +-------+----------------+----------------+----------------+--
 *       blocks |   0   | run 16 to 4096 |       ~0       |       ~1       | ...   4 bytes for 128 MiB of memory
 *              +-------+----------------+-------|--------+-------|--------+--
 *               no page                         v                v
 *       parts                          [run, run, run]     {words, set}          at most 256 runs; 4 KiB
 *
 * So a peer that wants it to grow must send: beyond the table, 2 MiB for the largest memory, at most some 20 bytes are
 * kept for a byte of traffic. The shortest run takes 2 bytes on the wire, and 4 in a block where none was; here 8 in a
 * list, which takes 100 itself once it has two of them, and as bits 16.
 */
export class PageCoverage {
  readonly pages: number;
  readonly #blocks: Int32Array;
  #parts: (Part | undefined)[] = [];
  /** Places in #parts that are free again. */
  #free: number[] = [];
  #covered = 0;

  /** @param pages of the region */
  constructor(pages: number) {
    this.pages = pages;
    this.#blocks = new Int32Array(Math.ceil(pages / BLOCK_PAGES));
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
      if (!this.#addRun(index, from, to)) return false;
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
    const base = first - index * BLOCK_PAGES;
    const part = this.#partOf(index);
    if (part !== undefined && !Array.isArray(part)) {
      const added = popCount(mask);
      if (!setBits(part, base >>> 5, (mask << (base & 31)) >>> 0, added)) return false;
      if (part.set === BLOCK_PAGES) this.#fold(index, runOf(0, BLOCK_PAGES));
      this.#covered += added;
      return true;
    }
    for (let rest = mask; rest !== 0;) {
      const from = lowestBit(rest);
      const to = from + lowestBit(~(rest >>> from));
      if (!this.#addRun(index, base + from, base + to)) return false;
      this.#covered += to - from;
      rest &= -1 << to;
    }
    return true;
  }

  /** All marks, for `merge`. */
  packed(): CoveredPages {
    const blocks = this.#blocks.slice();
    let length = 0;
    for (const part of this.#parts) length += part === undefined ? 0 : wordsOf(part).length;
    const words = new Uint32Array(length);
    let end = 0;
    for (const [index, entry] of this.#blocks.entries()) {
      const part = entry < 0 ? this.#parts[~entry] : undefined;
      if (part === undefined) continue;
      const its = wordsOf(part);
      words.set(its, end);
      blocks[index] = -its.length;
      end += its.length;
    }
    return { blocks, words };
  }

  /**
   * Marks all pages that another coverage of the same region has marked. Returns false as `cover` does: no page may be
   * marked by both.
   */
  merge({ blocks, words }: CoveredPages): boolean {
    let at = 0;
    for (const [index, entry] of blocks.entries()) {
      if (entry === 0) continue;
      const first = index * BLOCK_PAGES;
      if (entry > 0) {
        if (!this.cover(first + startOf(entry), first + endOf(entry))) return false;
        continue;
      }
      const its = words.subarray(at, at - entry);
      at -= entry;
      if (its.length === WORDS) {
        if (!this.#mergeBits(index, its)) return false;
        continue;
      }
      for (const run of its) if (!this.cover(first + startOf(run), first + endOf(run))) return false;
    }
    return true;
  }

  #mergeBits(index: number, words: Uint32Array): boolean {
    const bits = this.#bitsOf(index);
    const before = bits.set;
    for (const [word, added] of words.entries()) {
      if (!setBits(bits, word, added, popCount(added & 0xffff) + popCount(added >>> 16))) return false;
    }
    this.#covered += bits.set - before;
    if (bits.set === BLOCK_PAGES) this.#fold(index, runOf(0, BLOCK_PAGES));
    return true;
  }

  /** The first page that was not told about, or undefined when all were. */
  firstUncovered(): number | undefined {
    if (this.complete) return undefined;
    for (const [index, entry] of this.#blocks.entries()) {
      const told = this.#toldFirst(entry);
      if (told < BLOCK_PAGES) return index * BLOCK_PAGES + told;
    }
    return undefined;
  }

  /** Pages that are told from the beginning of a block on without a gap. */
  #toldFirst(entry: number): number {
    const part = entry < 0 ? this.#parts[~entry] : [entry];
    if (part === undefined) return 0;
    if (Array.isArray(part)) {
      const [run = 0] = part;
      return startOf(run) === 0 ? endOf(run) : 0;
    }
    const word = part.words.findIndex((bits) => bits !== 0xffff_ffff);
    return word * 32 + lowestBit(~(part.words[word] ?? 0));
  }

  #partOf(index: number): Part | undefined {
    const entry = this.#blocks[index] ?? 0;
    return entry < 0 ? this.#parts[~entry] : undefined;
  }

  /** Marks the pages [from, to) of a block. */
  #addRun(index: number, from: number, to: number): boolean {
    const part = this.#partOf(index);
    if (part !== undefined) {
      return Array.isArray(part) ? this.#addToList(index, part, from, to) : this.#addToBits(index, part, from, to);
    }
    const run = this.#blocks[index] ?? 0;
    if (run === 0) this.#blocks[index] = runOf(from, to);
    else if (endOf(run) === from) this.#blocks[index] = runOf(startOf(run), to);
    else if (startOf(run) === to) this.#blocks[index] = runOf(from, endOf(run));
    else if (endOf(run) < from) this.#keep(index, [run, runOf(from, to)]);
    else if (startOf(run) > to) this.#keep(index, [runOf(from, to), run]);
    else return false;
    return true;
  }

  #addToList(index: number, runs: Run[], from: number, to: number): boolean {
    const at = placeOf(runs, from);
    const before = runs[at - 1];
    const after = runs[at];
    if ((before !== undefined && endOf(before) > from) || (after !== undefined && startOf(after) < to)) return false;
    const start = before !== undefined && endOf(before) === from ? startOf(before) : from;
    const end = after !== undefined && startOf(after) === to ? endOf(after) : to;
    const run = runOf(start, end);
    if (start < from && end > to) {
      runs[at - 1] = run;
      runs.splice(at, 1);
      if (runs.length === 1) this.#fold(index, run);
    } else if (start < from) {
      runs[at - 1] = run;
    } else if (end > to) {
      runs[at] = run;
    } else if (runs.length < SHORT_LIST) {
      this.#replace(index, runs.toSpliced(at, 0, run));
    } else if (runs.length === MAX_RUNS) {
      return this.#addToBits(index, this.#bitsOf(index), from, to);
    } else if (at === runs.length) {
      runs.push(run);
    } else {
      runs.splice(at, 0, run);
    }
    return true;
  }

  #addToBits(index: number, bits: Bits, from: number, to: number): boolean {
    if (!setRun(bits, from, to)) return false;
    if (bits.set === BLOCK_PAGES) this.#fold(index, runOf(0, BLOCK_PAGES));
    return true;
  }

  /** The bits of a block, made of what is told of it so far. */
  #bitsOf(index: number): Bits {
    const entry = this.#blocks[index] ?? 0;
    const part = entry < 0 ? this.#parts[~entry] : [entry];
    if (part !== undefined && !Array.isArray(part)) return part;
    const bits: Bits = { words: new Uint32Array(WORDS), set: 0 };
    for (const run of part ?? []) setRun(bits, startOf(run), endOf(run));
    if (entry < 0) this.#replace(index, bits);
    else this.#keep(index, bits);
    return bits;
  }

  /** A block is one run no longer. */
  #keep(index: number, part: Part): void {
    const place = this.#free.pop() ?? this.#parts.length;
    this.#parts[place] = part;
    this.#blocks[index] = ~place;
  }

  #replace(index: number, part: Part): void {
    this.#parts[~(this.#blocks[index] ?? 0)] = part;
  }

  /** A block has become one run again. */
  #fold(index: number, run: Run): void {
    const place = ~(this.#blocks[index] ?? 0);
    this.#parts[place] = undefined;
    this.#free.push(place);
    this.#blocks[index] = run;
  }
}

/** What a part is made of, as numbers of 32 bits. */
function wordsOf(part: Part): readonly Run[] | Uint32Array {
  return Array.isArray(part) ? part : part.words;
}

function runOf(start: number, end: number): Run {
  return (start << 16) | end;
}

function startOf(run: Run): number {
  return run >>> 16;
}

function endOf(run: Run): number {
  return run & 0xffff;
}

/** Number of runs that begin at `page` or before: most come by ascending address, and belong at the end. */
function placeOf(runs: readonly Run[], page: number): number {
  const bound = runOf(page, 0xffff);
  let high = runs.length;
  if ((runs[high - 1] ?? 0) <= bound) return high;
  for (let low = 0; low < high;) {
    const middle = (low + high) >>> 1;
    if ((runs[middle] ?? 0) <= bound) low = middle + 1;
    else high = middle;
  }
  return high;
}

/** Index of the lowest bit of a number that is not 0. */
function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

/** Sets bits of one word; false when one of them was set before. */
function setBits(bits: Bits, word: number, added: number, count: number): boolean {
  const before = bits.words[word] ?? 0;
  if ((before & added) !== 0) return false;
  bits.words[word] = before | added;
  bits.set += count;
  return true;
}

function setRun(bits: Bits, from: number, to: number): boolean {
  for (let bit = from; bit < to;) {
    const low = bit & 31;
    const count = Math.min(32 - low, to - bit);
    const added = count === 32 ? 0xffff_ffff : (((1 << count) - 1) << low) >>> 0;
    if (!setBits(bits, bit >>> 5, added, count)) return false;
    bit += count;
  }
  return true;
}

/** Number of bits set in a 16-bit mask. */
export function popCount(mask: number): number {
  let bits = mask - ((mask >>> 1) & 0x5555);
  bits = (bits & 0x3333) + ((bits >>> 2) & 0x3333);
  bits = (bits + (bits >>> 4)) & 0x0f0f;
  return (bits + (bits >>> 8)) & 0x1f;
}
