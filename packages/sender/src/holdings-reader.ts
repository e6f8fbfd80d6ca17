import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { leafCount } from '@ballast/shared/memory';
import { FrameType, decodeHoldings, type HeldLeaf } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';

/** Leaves of a region that the receiver tells about: from `first` up to, and without, `end`. */
export interface LeafSpan {
  readonly region: number;
  /** Size of the region in bytes. */
  readonly regionBytes: number;
  readonly first: number;
  readonly end: number;
}

/**
 * What the destination holds, read from the connection as it is needed: the receiver hashes and tells span after span
 * by ascending leaf, and the sender asks in the same order, so that sending begins with the first answer.
 */
export class HoldingsReader {
  readonly #connection: Connection;
  readonly #spans: readonly LeafSpan[];
  #current = 0;
  /** Leaves of the current span below this are all told; Infinity when all of it is. */
  #toldTo: number;
  #told: HeldLeaf[] = [];
  #taken = 0;

  /** @param spans what the receiver tells about on this connection, by ascending region and leaf */
  constructor(connection: Connection, spans: readonly LeafSpan[]) {
    this.#connection = connection;
    this.#spans = spans;
    this.#toldTo = spans[0]?.first ?? 0;
  }

  /**
   * What is held of a leaf; undefined for nothing. Must be asked by ascending region and leaf, inside the spans.
   * @throws BallastError PROTOCOL, or the connection's failure
   */
  async find(region: number, leaf: number): Promise<HeldLeaf | undefined> {
    while ((this.#spans[this.#current]?.region ?? region) < region) await this.#finishSpan();
    while (this.#toldTo <= leaf) await this.#readFrame();
    for (let held = this.#told[this.#taken]; held !== undefined; held = this.#told[this.#taken]) {
      if (held.leaf > leaf) return undefined;
      this.#taken++;
      if (held.leaf === leaf) return held;
    }
    return undefined;
  }

  /** Reads what nobody asked for, so that the receiver's next message comes. */
  async drain(): Promise<void> {
    while (this.#current < this.#spans.length) await this.#finishSpan();
  }

  async #finishSpan(): Promise<void> {
    while (this.#toldTo !== Infinity) await this.#readFrame();
    this.#current++;
    this.#toldTo = this.#spans[this.#current]?.first ?? 0;
    this.#told = [];
    this.#taken = 0;
  }

  async #readFrame(): Promise<void> {
    const { control, frame } = await this.#connection.next();
    if (control !== undefined) {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `${this.#connection.peer} sent '${control.kind}' before it had told all that it holds`,
      );
    }
    const { header, payload } = frame;
    const span = this.#spans[this.#current];
    if (header.type !== FrameType.holdings || span === undefined || header.region !== span.region) {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `${this.#connection.peer} sent a frame of type ${header.type} where its holdings were expected`,
      );
    }
    const held = decodeHoldings(header, payload, span.regionBytes);
    const first = held[0]?.leaf ?? header.base;
    if (first < this.#toldTo || first > span.end)
      throw new BallastError(ErrorCode.PROTOCOL, `${this.#connection.peer} told its holdings out of order`);
    const last = held.at(-1);
    if (last !== undefined) this.#toldTo = last.leaf + 1;
    else if (header.base === span.end) this.#toldTo = Infinity;
    else this.#toldTo = header.base;
    // It is read on only when nobody wants what was told before.
    this.#told = held;
    this.#taken = 0;
  }
}

/** All leaves of all regions, as a session without channels is told about them. */
export function wholeRegions(regionBytes: readonly number[]): LeafSpan[] {
  return regionBytes.map((bytes, region) => ({ region, regionBytes: bytes, first: 0, end: leafCount(bytes) }));
}
