import { fstatSync } from 'node:fs';
import { isZero } from '@ballast/shared/integrity';
import { LEAF_SIZE, allocateBlocks, mapShared, punchHole, type Extent, type Mapping } from '@ballast/shared/memory';
import {
  dataStartOf,
  nextDataOf,
  readFully,
  writeFailed,
  type ReadableRegion,
  type RegionStore,
  type SharedStore,
} from './region-store.js';

/** One window at a time is mapped; a multiple of every huge page size up to 1 GiB. */
const WINDOW_BYTES = 1 << 30;

/**
 * A file on hugetlbfs, where write(2) is EINVAL: written through a mapping. Each huge page is allocated before it is
 * touched, so that an empty pool is ENOSPC and not SIGBUS.
 */
export class HugePageStore implements RegionStore {
  readonly bytes: number;
  mayHoldPages: boolean;
  #fd: number;
  #path: string;
  #pageBytes: number;
  #allocated = new Set<number>();
  #window: { start: number; mapping: Mapping } | undefined;

  /** @param pageBytes size of a huge page; the file's size is a multiple of it */
  constructor(fd: number, path: string, bytes: number, pageBytes: number, mayHoldPages: boolean) {
    this.#fd = fd;
    this.#path = path;
    this.bytes = bytes;
    this.#pageBytes = pageBytes;
    this.mayHoldPages = mayHoldPages;
  }

  get shared(): SharedStore {
    const file = { fd: this.#fd, path: this.#path, hugePageBytes: this.#pageBytes, countsPages: false };
    return { file, bytes: this.bytes, mayHoldPages: this.mayHoldPages };
  }

  get storedBytes(): number {
    return fstatSync(this.#fd).blocks * 512;
  }

  write(offset: number, from: Buffer): void {
    this.#allocate(offset, offset + from.length);
    for (let done = 0; done < from.length;) {
      const { start, mapping } = this.#windowAt(offset + done);
      done += from.copy(mapping.bytes, offset + done - start, done);
    }
  }

  read(offset: number, into: Buffer): void {
    readFully(this.#fd, this.#path, offset, into);
  }

  /** hugetlbfs reports one run of data, holes and all; read(2) of a hole allocates nothing. */
  nextData(offset: number): Extent | undefined {
    return nextDataOf(this.#fd, this.#path, offset, this.bytes);
  }

  nextDataStart(offset: number): number | undefined {
    return dataStartOf(this.#fd, this.#path, offset, this.bytes);
  }

  copyFrom(source: ReadableRegion, offset: number, length: number): void {
    const bytes = Buffer.allocUnsafe(length);
    source.read(offset, bytes);
    this.write(offset, bytes);
  }

  /** Whole huge pages are punched; what is left at the edges is zeroed where it is allocated. */
  release(start: number, end: number): void {
    if (!this.mayHoldPages) return;
    const first = Math.ceil(start / this.#pageBytes) * this.#pageBytes;
    const last = Math.floor(end / this.#pageBytes) * this.#pageBytes;
    if (first < last) {
      try {
        punchHole(this.#fd, first, last - first);
      } catch (error) {
        throw writeFailed(this.#path, first, error);
      }
      for (let page = first / this.#pageBytes; page < last / this.#pageBytes; page++) this.#allocated.delete(page);
    }
    if (first > last) this.#zero(start, end);
    else {
      this.#zero(start, first);
      this.#zero(last, end);
    }
  }

  close(): void {
    this.#window?.mapping.unmap();
    this.#window = undefined;
  }

  /** What reads as zeros already may be a hole, and stays one: a huge page is much to pay for an empty edge. */
  #zero(start: number, end: number): void {
    const bytes = Buffer.allocUnsafe(Math.min(LEAF_SIZE, end - start));
    for (let at = start; at < end; at += bytes.length) {
      const piece = bytes.subarray(0, Math.min(bytes.length, end - at));
      this.read(at, piece);
      if (isZero(piece, 0, piece.length)) continue;
      this.write(at, piece.fill(0));
    }
  }

  #allocate(start: number, end: number): void {
    for (let page = Math.floor(start / this.#pageBytes); page * this.#pageBytes < end; page++) {
      if (this.#allocated.has(page)) continue;
      try {
        allocateBlocks(this.#fd, page * this.#pageBytes, this.#pageBytes);
      } catch (error) {
        throw writeFailed(this.#path, page * this.#pageBytes, error);
      }
      this.#allocated.add(page);
    }
  }

  #windowAt(offset: number): { start: number; mapping: Mapping } {
    const start = offset - (offset % WINDOW_BYTES);
    if (this.#window?.start === start) return this.#window;
    this.close();
    try {
      this.#window = { start, mapping: mapShared(this.#fd, start, Math.min(WINDOW_BYTES, this.bytes - start), true) };
    } catch (error) {
      throw writeFailed(this.#path, start, error);
    }
    return this.#window;
  }
}
