import type { Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { Dialect, FrameType, type Frame } from '@ballast/shared/protocol';
import { Cause, type Stopwatch } from '@ballast/shared/measure';
import { LeafUnpacker } from './leaf-unpacker.js';
import type { ReceivedRegion } from './received-region.js';

/** Which bulk frames a stream of each dialect may hold. */
const ALLOWED: Readonly<Record<Dialect, readonly FrameType[]>> = {
  [Dialect.whiteouts]: [FrameType.leaves, FrameType.whiteouts],
  [Dialect.map]: [FrameType.leaves, FrameType.whiteouts, FrameType.freeRanges],
  [Dialect.ranges]: [FrameType.leaves, FrameType.zeroRanges, FrameType.freeRanges],
};

/** What taking in a frame is, before the stopwatch is told more. */
const CAUSES: Readonly<Partial<Record<FrameType, Cause>>> = {
  [FrameType.leaves]: Cause.data,
  [FrameType.freeRanges]: Cause.sendMap,
};

/** What the two sides have agreed on. */
export interface AgreedTerms {
  readonly dialect: Dialect;
  /** As leaf records count them. */
  readonly compressions: readonly Compression[];
}

/** Applies bulk frames, each to the region that it speaks of. */
export class FrameApplication {
  readonly #dialect: Dialect;
  readonly #unpacker: LeafUnpacker;
  readonly #regions: readonly ReceivedRegion[];
  readonly #onDamaged: (region: number, leaf: number) => void;
  readonly #stopwatch: Stopwatch;

  /** @param onDamaged told of each leaf that is not what was sent */
  constructor(
    { dialect, compressions }: AgreedTerms,
    regions: readonly ReceivedRegion[],
    stopwatch: Stopwatch,
    onDamaged: (region: number, leaf: number) => void,
  ) {
    this.#stopwatch = stopwatch;
    this.#dialect = dialect;
    this.#unpacker = new LeafUnpacker(compressions, stopwatch);
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
    this.#stopwatch.switchTo(CAUSES[type] ?? Cause.announce);
    if (type === FrameType.leaves) {
      for (const leaf of region.applyLeaves(frame, this.#unpacker)) this.#onDamaged(index, leaf);
    } else if (type === FrameType.whiteouts) region.applyWhiteouts(frame);
    else region.applyRanges(frame);
    this.#stopwatch.switchTo(Cause.data);
  }
}
