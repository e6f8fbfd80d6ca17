import { Dialect, FrameType, RangeEncoder, WhiteoutEncoder } from '@ballast/shared/protocol';
import { LEAF_PAGES, pageAt, type ExtentSet } from '@ballast/shared/memory';
import type { Connection } from '@ballast/shared/transport';

/** What announcing cost. */
export interface AnnounceCounts {
  whiteouts: number;
  /** Bytes of range payloads. */
  mapBytes: number;
}

/**
 * Tells the receiver which pages of one region are not sent, in the order of their addresses. What is told depends on
 * the pages alone and never on how they were identified, so two strategies of one dialect send the same bytes.
 */
export interface Announcer {
  /**
   * A leaf was read: `scanned` of its pages, of which `mask` are not zero. Called before the leaf's pages are sent.
   * Returns undefined when there is nothing to wait for, as for nearly every leaf of data.
   */
  leaf(leaf: number, scanned: number, mask: number): Promise<void> | undefined;
  /** All was read; what is left is told. */
  finish(): Promise<void>;
}

/** Which pages an announcer speaks of: those of `region` from `first` up to, and without, `end`. */
export interface PageSpan {
  readonly region: number;
  readonly first: number;
  readonly end: number;
}

export function announcerOf(
  dialect: Dialect,
  connection: Connection,
  { region, first, end }: PageSpan,
  counts: AnnounceCounts,
): Announcer {
  switch (dialect) {
    case Dialect.whiteouts:
      return whiteoutsForAll(new WhiteoutWriter(connection, region, counts), first, end);
    case Dialect.map: {
      const writer = new WhiteoutWriter(connection, region, counts);
      return forScanned(
        (start, stop) => writer.add(start, stop),
        () => writer.flush(),
      );
    }
    case Dialect.ranges: {
      const writer = new RangeWriter(connection, FrameType.zeroRanges, region, counts);
      return forScanned(
        (start, stop) => writer.add(start, stop),
        () => writer.flush(),
      );
    }
  }
}

/** Tells the balloon map of one region, ahead of everything else. */
export async function announceBalloonMap(
  connection: Connection,
  region: number,
  free: ExtentSet,
  counts: AnnounceCounts,
): Promise<void> {
  const writer = new RangeWriter(connection, FrameType.freeRanges, region, counts);
  for (let run = 0; run < free.count; run++) await writer.add(pageAt(free.start(run)), pageAt(free.end(run)));
  await writer.flush();
}

/** A whiteout for every page that is not sent: those scanned and found to be zero, and those never looked at. */
function whiteoutsForAll(writer: WhiteoutWriter, firstPage: number, endPage: number): Announcer {
  let next = firstPage;
  const tell = async (from: number, first: number, end: number, mask: number): Promise<void> => {
    if (from < first) await writer.add(from, first);
    if (mask === 0) await writer.add(first, end);
    else await eachRun(first, end, ~mask & 0xffff, (start, stop) => writer.add(start, stop));
  };
  return {
    leaf(leaf, _scanned, mask) {
      const from = next;
      const first = leaf * LEAF_PAGES;
      next = Math.min(first + LEAF_PAGES, endPage);
      return from === first && mask === 0xffff ? undefined : tell(from, first, next, mask);
    },
    async finish() {
      if (next < endPage) await writer.add(next, endPage);
      await writer.flush();
    },
  };
}

/** Only the pages that scanning found to be zero: the balloon map was told already. */
function forScanned(add: (start: number, end: number) => Promise<void>, flush: () => Promise<void>): Announcer {
  return {
    leaf(leaf, scanned, mask) {
      const zero = scanned & ~mask;
      const first = leaf * LEAF_PAGES;
      if (zero === 0) return undefined;
      return zero === 0xffff ? add(first, first + LEAF_PAGES) : eachRun(first, first + LEAF_PAGES, zero, add);
    },
    finish: flush,
  };
}

/** Calls `visit` with each run of pages whose bits are set; bit n is page `first` + n, and none at `end` or later counts. */
async function eachRun(
  first: number,
  end: number,
  bits: number,
  visit: (start: number, end: number) => Promise<void>,
): Promise<void> {
  for (let page = first; page < end; page++) {
    if ((bits & (1 << (page - first))) === 0) continue;
    const start = page;
    while (page < end && (bits & (1 << (page - first))) !== 0) page++;
    await visit(start, page);
  }
}

class WhiteoutWriter {
  #encoder = new WhiteoutEncoder();
  #connection: Connection;
  #region: number;
  #counts: AnnounceCounts;

  constructor(connection: Connection, region: number, counts: AnnounceCounts) {
    this.#connection = connection;
    this.#region = region;
    this.#counts = counts;
  }

  async add(start: number, end: number): Promise<void> {
    this.#counts.whiteouts += end - start;
    for (let page = start; page < end;) {
      page = this.#encoder.add(page, end);
      if (this.#encoder.full) await this.flush();
    }
  }

  async flush(): Promise<void> {
    const count = this.#encoder.count;
    if (count === 0) return;
    await this.#connection.send({
      type: FrameType.whiteouts,
      region: this.#region,
      count,
      checked: this.#encoder.take(),
    });
  }
}

class RangeWriter {
  #encoder = new RangeEncoder();
  #pending: { start: number; end: number } | undefined;
  #connection: Connection;
  #type: typeof FrameType.freeRanges | typeof FrameType.zeroRanges;
  #region: number;
  #counts: AnnounceCounts;

  constructor(
    connection: Connection,
    type: typeof FrameType.freeRanges | typeof FrameType.zeroRanges,
    region: number,
    counts: AnnounceCounts,
  ) {
    this.#connection = connection;
    this.#type = type;
    this.#region = region;
    this.#counts = counts;
  }

  /** Runs that touch are joined, however many calls bring them. */
  async add(start: number, end: number): Promise<void> {
    if (this.#pending?.end === start) {
      this.#pending.end = end;
      return;
    }
    if (this.#pending !== undefined) await this.#encode(this.#pending.start, this.#pending.end);
    this.#pending = { start, end };
  }

  async flush(): Promise<void> {
    if (this.#pending !== undefined) await this.#encode(this.#pending.start, this.#pending.end);
    this.#pending = undefined;
    await this.#send();
  }

  async #encode(start: number, end: number): Promise<void> {
    if (!this.#encoder.hasRoom) await this.#send();
    this.#encoder.add(start, end);
  }

  async #send(): Promise<void> {
    const { count, base } = this.#encoder;
    if (count === 0) return;
    const payload = this.#encoder.take();
    this.#counts.mapBytes += payload.length;
    await this.#connection.send({ type: this.#type, region: this.#region, count, base, checked: payload });
  }
}

/** Tells nothing: for leaves that are sent again. */
export const silentAnnouncer: Announcer = {
  leaf: () => undefined,
  async finish() {
    // Nothing is left.
  },
};
