/** A run of bytes, half open. */
export interface Extent {
  /** First byte. */
  readonly start: number;
  /** Byte after the last. */
  readonly end: number;
}

/**
 * An immutable set of bytes as sorted runs that neither overlap nor touch. All offsets in bytes, below 2^53. Two
 * numbers a run in one array: a million runs are 16 MB, and walking them by index makes no garbage.
 */
export class ExtentSet implements Iterable<Extent> {
  static readonly empty = new ExtentSet(new Float64Array(0));

  /** start, end, start, end… */
  readonly #bounds: Float64Array;
  #bytes: number | undefined;

  /** @param bounds alternating starts and ends, strictly ascending; not copied */
  private constructor(bounds: Float64Array) {
    this.#bounds = bounds;
  }

  /** The union of runs in any order, which may overlap; empty ones are left out. */
  static of(runs: readonly (readonly [start: number, end: number])[]): ExtentSet {
    const builder = new ExtentSetBuilder();
    for (const [start, end] of [...runs].sort((a, b) => a[0] - b[0])) builder.add(start, end);
    return builder.build();
  }

  /** One run from 0 to `bytes`. */
  static whole(bytes: number): ExtentSet {
    return ExtentSet.of([[0, bytes]]);
  }

  /** For runs that come by ascending start. */
  static builder(): ExtentSetBuilder {
    return new ExtentSetBuilder();
  }

  /**
   * The set that another one's `bounds` describe.
   * @param bounds alternating starts and ends, strictly ascending; taken over, not copied
   */
  static ofBounds(bounds: Float64Array): ExtentSet {
    return bounds.length === 0 ? ExtentSet.empty : new ExtentSet(bounds);
  }

  /** Start, end, start, end…, which threads can hand to each other; not to be changed. */
  get bounds(): Float64Array {
    return this.#bounds;
  }

  /** Number of runs. */
  get count(): number {
    return this.#bounds.length / 2;
  }

  /** First byte of run `index`. */
  start(index: number): number {
    return this.#at(2 * index);
  }

  /** Byte after the last of run `index`. */
  end(index: number): number {
    return this.#at(2 * index + 1);
  }

  /** Bytes in all runs. */
  get bytes(): number {
    if (this.#bytes === undefined) {
      this.#bytes = 0;
      for (let i = 0; i < this.count; i++) this.#bytes += this.end(i) - this.start(i);
    }
    return this.#bytes;
  }

  *[Symbol.iterator](): Generator<Extent> {
    for (let i = 0; i < this.count; i++) yield { start: this.start(i), end: this.end(i) };
  }

  /** Index of the first run that ends after `offset`; `count` when none does. */
  indexAfter(offset: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.end(middle) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  contains(offset: number): boolean {
    const index = this.indexAfter(offset);
    return index < this.count && this.start(index) <= offset;
  }

  equals(other: ExtentSet): boolean {
    return this.count === other.count && this.#bounds.every((bound, index) => bound === other.#bounds[index]);
  }

  union(other: ExtentSet): ExtentSet {
    if (this.count === 0) return other;
    if (other.count === 0) return this;
    const builder = new ExtentSetBuilder();
    for (let i = 0, j = 0; i < this.count || j < other.count;) {
      const takeThis = j >= other.count || (i < this.count && this.start(i) <= other.start(j));
      if (takeThis) builder.add(this.start(i), this.end(i++));
      else builder.add(other.start(j), other.end(j++));
    }
    return builder.build();
  }

  intersect(other: ExtentSet): ExtentSet {
    const builder = new ExtentSetBuilder();
    for (let i = 0, j = 0; i < this.count && j < other.count;) {
      builder.add(Math.max(this.start(i), other.start(j)), Math.min(this.end(i), other.end(j)));
      if (this.end(i) < other.end(j)) i++;
      else j++;
    }
    return builder.build();
  }

  /** What is in this set and not in `other`. */
  subtract(other: ExtentSet): ExtentSet {
    if (this.count === 0 || other.count === 0) return this;
    return this.intersect(other.complement(this.end(this.count - 1)));
  }

  /** What is in [0, bytes) and not in this set. */
  complement(bytes: number): ExtentSet {
    const builder = new ExtentSetBuilder();
    let position = 0;
    for (let i = 0; i < this.count && position < bytes; i++) {
      builder.add(position, Math.min(this.start(i), bytes));
      position = this.end(i);
    }
    builder.add(position, bytes);
    return builder.build();
  }

  /** The part in [start, end). */
  slice(start: number, end: number): ExtentSet {
    const builder = new ExtentSetBuilder();
    for (let i = this.indexAfter(start); i < this.count && this.start(i) < end; i++) {
      builder.add(Math.max(this.start(i), start), Math.min(this.end(i), end));
    }
    return builder.build();
  }

  /** Each run shrunk to whole units: for what may be skipped. */
  alignInward(unit: number): ExtentSet {
    // Not by the remainder: of numbers above 2^31 that is a call out of compiled code.
    if (this.#bounds.every((bound) => Math.floor(bound / unit) * unit === bound)) return this;
    const builder = new ExtentSetBuilder();
    for (let i = 0; i < this.count; i++) {
      builder.add(Math.ceil(this.start(i) / unit) * unit, Math.floor(this.end(i) / unit) * unit);
    }
    return builder.build();
  }

  /** Each run grown to whole units, but not beyond `limit`: for what must not be missed. */
  alignOutward(unit: number, limit: number): ExtentSet {
    const builder = new ExtentSetBuilder();
    for (let i = 0; i < this.count; i++) {
      builder.add(Math.floor(this.start(i) / unit) * unit, Math.min(Math.ceil(this.end(i) / unit) * unit, limit));
    }
    return builder.build();
  }

  #at(index: number): number {
    const bound = this.#bounds[index];
    if (bound === undefined) throw new RangeError(`no run ${Math.floor(index / 2)} in a set of ${this.count}`);
    return bound;
  }
}

/** Collects runs by ascending start; runs that overlap or touch become one. */
export class ExtentSetBuilder {
  #bounds = new Float64Array(16);
  #length = 0;

  /**
   * Adds [start, end) in bytes; an empty run is ignored.
   * @throws RangeError when it starts before the run added last
   */
  add(start: number, end: number): this {
    if (start >= end) return this;
    const last = this.#length;
    if (last > 0) {
      if (start < (this.#bounds[last - 2] ?? 0)) throw new RangeError(`runs must come in order: ${start} came late`);
      const lastEnd = this.#bounds[last - 1] ?? 0;
      if (start <= lastEnd) {
        this.#bounds[last - 1] = Math.max(lastEnd, end);
        return this;
      }
    }
    if (last === this.#bounds.length) {
      const grown = new Float64Array(2 * last);
      grown.set(this.#bounds);
      this.#bounds = grown;
    }
    this.#bounds[last] = start;
    this.#bounds[last + 1] = end;
    this.#length += 2;
    return this;
  }

  /** The set; the builder must not be used afterwards. */
  build(): ExtentSet {
    return ExtentSet.ofBounds(this.#bounds.slice(0, this.#length));
  }
}
