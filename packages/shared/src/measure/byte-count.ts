/**
 * A count of bytes that code which runs often raises. V8 keeps a field of small integers apart from one of other numbers:
 * once a plain field passes 2 GiB, all code that was compiled for its object is thrown away. An array of floating-point
 * numbers is one from the start.
 */
export class ByteCount {
  readonly #bytes: Float64Array;

  constructor(bytes = 0) {
    this.#bytes = Float64Array.of(bytes);
  }

  get bytes(): number {
    return this.#bytes[0] ?? 0;
  }

  add(bytes: number): void {
    this.#bytes[0] = this.bytes + bytes;
  }
}
