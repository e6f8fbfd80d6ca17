import { PAGE_SIZE } from '../memory/page.js';

/** What a page can be; docs/protocol.md says what each means. */
export type PageKind = 'data' | 'zero' | 'free';

export const PAGE_KINDS: readonly PageKind[] = ['data', 'zero', 'free'];

/** Bytes of each kind. What was not told about is in none. */
export type KindTotals = Readonly<Record<PageKind, number>>;

/**
 * A memory as a row of cells, each of the same size, with the bytes of each kind in each: what a picture is drawn from.
 * A cell is a whole power of two of pages, so that its borders are round offsets; the last one may be shorter.
 */
export class MemoryCells {
  readonly memoryBytes: number;
  /** Bytes of a cell. */
  readonly cellBytes: number;
  /** Number of cells: at most as many as were asked for, and more than half as many unless there are fewer pages. */
  readonly count: number;
  readonly #bytes: Readonly<Record<PageKind, Float64Array>>;
  readonly #totals = { data: 0, zero: 0, free: 0 };
  readonly #extents = { data: 0, zero: 0, free: 0 };
  #last: { readonly kind: PageKind; readonly end: number } | undefined;

  /**
   * @param memoryBytes size of the memory
   * @param mostCells number of cells that there is room for, 1 or more
   */
  constructor(memoryBytes: number, mostCells: number) {
    this.memoryBytes = memoryBytes;
    let cellBytes = PAGE_SIZE;
    while (cellBytes * mostCells < memoryBytes) cellBytes *= 2;
    this.cellBytes = cellBytes;
    this.count = Math.ceil(memoryBytes / cellBytes);
    this.#bytes = {
      data: new Float64Array(this.count),
      zero: new Float64Array(this.count),
      free: new Float64Array(this.count),
    };
  }

  /**
   * Says what the bytes [start, end) are. Each byte is told about once; told in ascending order, neighbours of one kind
   * count as one extent. Costs as much as there are cells in the range.
   */
  add(kind: PageKind, start: number, end: number): void {
    // Written so that NaN is refused, too.
    if (!(start >= 0 && start <= end && end <= this.memoryBytes)) {
      throw new RangeError(`[${start}, ${end}) is outside a memory of ${this.memoryBytes} bytes`);
    }
    if (start === end) return;
    const bytes = this.#bytes[kind];
    for (let cell = Math.floor(start / this.cellBytes); cell * this.cellBytes < end; cell++) {
      const from = Math.max(start, cell * this.cellBytes);
      const to = Math.min(end, (cell + 1) * this.cellBytes);
      bytes[cell] = (bytes[cell] ?? 0) + (to - from);
    }
    this.#totals[kind] += end - start;
    if (this.#last?.kind !== kind || this.#last.end !== start) this.#extents[kind]++;
    this.#last = { kind, end };
  }

  /** Bytes of each kind in all of the memory. */
  get totals(): KindTotals {
    return this.#totals;
  }

  /** Number of extents of each kind. */
  get extents(): KindTotals {
    return this.#extents;
  }

  /** Bytes of each kind in the cells [first, end); what lies behind the last cell counts as nothing. */
  sum(first: number, end: number): KindTotals {
    const sum = { data: 0, zero: 0, free: 0 };
    for (const kind of PAGE_KINDS) {
      for (let cell = first; cell < Math.min(end, this.count); cell++) sum[kind] += this.#bytes[kind][cell] ?? 0;
    }
    return sum;
  }
}
