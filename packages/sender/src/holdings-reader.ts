import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { leafCount } from '@ballast/shared/memory';
import { FrameType, decodeHoldings, type HeldLeaf } from '@ballast/shared/protocol';
import type { Connection } from '@ballast/shared/transport';

/**
 * What the destination holds, read from the connection as it is needed: the receiver hashes and tells region after
 * region by ascending leaf, and the sender asks in the same order, so that sending begins with the first answer.
 */
export class HoldingsReader {
  readonly #connection: Connection;
  readonly #regionBytes: readonly number[];
  #region = 0;
  /** Leaves of #region below this are all told; Infinity when all of the region is. */
  #toldTo = 0;
  #told: HeldLeaf[] = [];
  #taken = 0;

  /** @param regionBytes size of each region in bytes */
  constructor(connection: Connection, regionBytes: readonly number[]) {
    this.#connection = connection;
    this.#regionBytes = regionBytes;
  }

  /**
   * What is held of a leaf; undefined for nothing. Must be asked by ascending region and leaf.
   * @throws BallastError PROTOCOL, or the connection's failure
   */
  async find(region: number, leaf: number): Promise<HeldLeaf | undefined> {
    while (this.#region < region) await this.#finishRegion();
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
    while (this.#region < this.#regionBytes.length) await this.#finishRegion();
  }

  async #finishRegion(): Promise<void> {
    while (this.#toldTo !== Infinity) await this.#readFrame();
    this.#region++;
    this.#toldTo = 0;
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
    const bytes = this.#regionBytes[this.#region];
    if (header.type !== FrameType.holdings || header.region !== this.#region || bytes === undefined) {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `${this.#connection.peer} sent a frame of type ${header.type} where its holdings were expected`,
      );
    }
    const held = decodeHoldings(header, payload, bytes);
    const first = held[0]?.leaf ?? header.base;
    if (first < this.#toldTo)
      throw new BallastError(ErrorCode.PROTOCOL, `${this.#connection.peer} told its holdings out of order`);
    const last = held.at(-1);
    if (last !== undefined) this.#toldTo = last.leaf + 1;
    else if (header.base === leafCount(bytes)) this.#toldTo = Infinity;
    else this.#toldTo = header.base;
    // It is read on only when nobody wants what was told before.
    this.#told = held;
    this.#taken = 0;
  }
}
