import { mapShared, type Mapping } from '@ballast/shared/memory';
import { PositionalStore, writeFailed, type SharedFile } from './region-store.js';

/** One window at a time is mapped, so that page tables and RSS stay bounded. */
const WINDOW_BYTES = 256 << 20;

/**
 * A file on tmpfs that several threads write at a time. write(2) holds the file's lock while it copies, so that more
 * threads are no faster than one; pages of a mapping are made and filled side by side.
 *
 * Each page is made ready before it is touched. Where that fails, as on a full filesystem, nothing is touched, and
 * write(2) does it or says why not: no SIGBUS, unless someone makes the file shorter in just that moment.
 */
export class MappedStore extends PositionalStore {
  readonly #fd: number;
  readonly #path: string;
  #window: { start: number; readonly mapping: Mapping } | undefined;

  constructor(file: SharedFile, bytes: number, mayHoldPages: boolean) {
    super(file, bytes, mayHoldPages);
    this.#fd = file.fd;
    this.#path = file.path;
  }

  override write(offset: number, from: Buffer): void {
    for (let done = 0; done < from.length;) {
      const { start, mapping } = this.#windowAt(offset + done);
      const at = offset + done - start;
      const length = Math.min(from.length - done, WINDOW_BYTES - at);
      if (mapping.makeWritable(at, length)) from.copy(mapping.bytes, at, done, done + length);
      else super.write(offset + done, from.subarray(done, done + length));
      done += length;
    }
  }

  override close(): void {
    this.#window?.mapping.unmap();
    this.#window = undefined;
  }

  #windowAt(offset: number): { start: number; readonly mapping: Mapping } {
    const start = offset - (offset % WINDOW_BYTES);
    if (this.#window?.start === start) return this.#window;
    const length = Math.min(WINDOW_BYTES, this.bytes - start);
    try {
      this.#window ??= { start: 0, mapping: mapShared(this.#fd, 0, Math.min(WINDOW_BYTES, this.bytes), true) };
      this.#window.mapping.slide(start, length);
      this.#window.start = start;
      return this.#window;
    } catch (error) {
      throw writeFailed(this.#path, start, error);
    }
  }
}
