import { codecOf, type Compression } from '@ballast/shared/compression';
import { Cause, type Stopwatch } from '@ballast/shared/measure';
import { PAGE_SIZE, alignedBuffer, popCount } from '@ballast/shared/memory';
import { MAX_BATCH_BYTES, type LeafRecord } from '@ballast/shared/protocol';

/** Leaves as if they had not been compressed. */
export interface Unpacked {
  readonly records: readonly LeafRecord[];
  /** What `at` and `stored` of the records speak of. Valid until the next frame is unpacked. */
  readonly pages: Buffer;
  /** Leaves that cannot be restored: damaged on the way. */
  readonly damaged: readonly LeafRecord[];
}

/** Restores the compressed leaves of one connection's frames, in memory that is allocated once, when the first comes. */
export class LeafUnpacker {
  /** What may be compressed with, as leaf records count it. */
  readonly compressions: readonly Compression[];
  readonly #stopwatch: Stopwatch;
  #pages: Buffer | undefined;

  constructor(compressions: readonly Compression[], stopwatch: Stopwatch) {
    this.compressions = compressions;
    this.#stopwatch = stopwatch;
  }

  /** @param records of the payload, checked: all of their pages together are no more than MAX_BATCH_BYTES */
  unpack(records: readonly LeafRecord[], payload: Buffer): Unpacked {
    if (!records.some(isCompressed)) return { records, pages: payload, damaged: [] };
    this.#stopwatch.switchTo(Cause.compress);
    this.#pages ??= alignedBuffer(MAX_BATCH_BYTES);
    const restored: LeafRecord[] = [];
    const damaged: LeafRecord[] = [];
    let end = 0;
    for (const record of records) {
      const pages = this.#restore(record, payload.subarray(record.at, record.at + record.stored));
      if (pages === undefined) {
        damaged.push(record);
        continue;
      }
      pages.copy(this.#pages, end);
      restored.push({ ...record, at: end, stored: pages.length });
      end += pages.length;
    }
    return { records: restored, pages: this.#pages, damaged };
  }

  #restore(record: LeafRecord, stored: Buffer): Buffer | undefined {
    if (!isCompressed(record)) return stored;
    const compression = this.compressions[record.codec];
    return compression && codecOf(compression)?.restore(stored, pageBytes(record));
  }
}

function isCompressed(record: LeafRecord): boolean {
  return record.stored !== pageBytes(record);
}

function pageBytes({ sent }: LeafRecord): number {
  return popCount(sent) * PAGE_SIZE;
}
