import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { Dialect, FrameType, MAX_PAYLOAD, type Frame } from '@ballast/shared/protocol';
import type { ReceivedRegion } from './received-region.js';

/** Which bulk frames a stream of each dialect may hold. */
const ALLOWED: Readonly<Record<Dialect, readonly FrameType[]>> = {
  [Dialect.whiteouts]: [FrameType.leaves, FrameType.whiteouts],
  [Dialect.map]: [FrameType.leaves, FrameType.whiteouts, FrameType.freeRanges],
  [Dialect.ranges]: [FrameType.leaves, FrameType.zeroRanges, FrameType.freeRanges],
};

/** Applies bulk frames, each to the region that it speaks of. */
export class FrameApplication {
  readonly #dialect: Dialect;
  readonly #regions: readonly ReceivedRegion[];
  readonly #onDamaged: (region: number, leaf: number) => void;
  /** Where pages are read back to. */
  readonly #scratch = Buffer.alloc(MAX_PAYLOAD[FrameType.leaves]);

  /** @param onDamaged told of each leaf that is not what was sent */
  constructor(dialect: Dialect, regions: readonly ReceivedRegion[], onDamaged: (region: number, leaf: number) => void) {
    this.#dialect = dialect;
    this.#regions = regions;
    this.#onDamaged = onDamaged;
  }

  /** @throws BallastError PROTOCOL, WRITE, NO_SPACE, READ, DIGEST_MISMATCH */
  apply(frame: Frame): void {
    const { type, region: index } = frame.header;
    const region = this.#regions[index];
    if (region === undefined)
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `the sender speaks of memory file ${index}, and there are ${this.#regions.length}`,
      );
    if (!ALLOWED[this.#dialect].includes(type)) {
      throw new BallastError(
        ErrorCode.PROTOCOL,
        `the sender sent a frame of type ${type}, which the dialect '${this.#dialect}' does not have`,
      );
    }
    if (type === FrameType.leaves) {
      for (const leaf of region.applyLeaves(frame, this.#scratch)) this.#onDamaged(index, leaf);
    } else if (type === FrameType.whiteouts) region.applyWhiteouts(frame);
    else region.applyRanges(frame);
  }
}
