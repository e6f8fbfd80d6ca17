import { codecOf, type Codec, type Compression } from '@ballast/shared/compression';
import { PAGE_SIZE, popCount } from '@ballast/shared/memory';
import { MAX_BATCH_BYTES, type LeafRecord } from '@ballast/shared/protocol';

/** Leaves as if they had not been compressed. */
export interface Unpacked {
  readonly records: readonly LeafRecord[];
  /** What `at` and `stored` of the records speak of. Valid until the next frame is unpacked. */
  readonly pages: Buffer;
  /** Leaves that cannot be restored: damaged on the way. */
  readonly damaged: readonly LeafRecord[];
}

/** Restores the compressed leaves of one connection's frames, in memory that is allocated once. */
export class LeafUnpacker {
  readonly #codec: Codec;
  readonly #pages = Buffer.alloc(MAX_BATCH_BYTES);

  private constructor(codec: Codec) {
    this.#codec = codec;
  }

  /** Undefined where nothing is compressed. */
  static for(compression: Compression): LeafUnpacker | undefined {
    const codec = codecOf(compression);
    return codec && new LeafUnpacker(codec);
  }

  /** @param records of the payload, checked: all of their pages together are no more than MAX_BATCH_BYTES */
  unpack(records: readonly LeafRecord[], payload: Buffer): Unpacked {
    if (records.every(({ sent, stored }) => stored === popCount(sent) * PAGE_SIZE))
      return { records, pages: payload, damaged: [] };
    const restored: LeafRecord[] = [];
    const damaged: LeafRecord[] = [];
    let end = 0;
    for (const record of records) {
      const stored = payload.subarray(record.at, record.at + record.stored);
      const length = popCount(record.sent) * PAGE_SIZE;
      const pages = stored.length === length ? stored : this.#codec.restore(stored, length);
      if (pages === undefined) {
        damaged.push(record);
        continue;
      }
      pages.copy(this.#pages, end);
      restored.push({ ...record, at: end, stored: length });
      end += length;
    }
    return { records: restored, pages: this.#pages, damaged };
  }
}
