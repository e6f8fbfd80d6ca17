import type { GuestMemoryFile } from '@ballast/shared/qmp';
import type { Destination } from '../destination/destination.js';
import { allocatedBytes, checkRoom } from '../destination/filesystem.js';
import { closeFile, openExisting, type InPlaceFile } from '../destination/in-place-files.js';
import type { RegionStore } from '../destination/region-store.js';

/**
 * The memory files of a waiting QEMU. What they hold is worth nothing until the guest is resumed, and nobody can use it
 * before, so that nothing has to mark them meanwhile.
 */
export class GuestFiles implements Destination {
  readonly readsBack = true;
  readonly #files: readonly InPlaceFile[];

  private constructor(files: readonly InPlaceFile[]) {
    this.#files = files;
  }

  /** @throws BallastError MISMATCH, BUSY, NO_SPACE, WRITE */
  static open(
    memory: readonly GuestMemoryFile[],
    regionBytes: readonly number[],
    neededBytes: number | undefined,
  ): GuestFiles {
    const files: InPlaceFile[] = [];
    try {
      for (const [index, { path }] of memory.entries()) files.push(openExisting(path, regionBytes[index] ?? 0));
      if (neededBytes !== undefined) checkRoom(files, neededBytes);
      return new GuestFiles(files);
    } catch (error) {
      files.forEach(closeFile);
      throw error;
    }
  }

  /** What an earlier try left is hashed, and what is right of it need not come again. */
  get holds(): boolean {
    return this.#files.some((file) => allocatedBytes(file.fd) > 0);
  }

  get stores(): readonly RegionStore[] {
    return this.#files.map((file) => file.store);
  }

  async sync(): Promise<void> {
    // A running guest's memory lives in the page cache; a crash of the host ends the guest anyway.
  }

  async publish(): Promise<void> {
    // The guest is resumed: that is all there is to see.
  }

  close(): undefined {
    this.#files.forEach(closeFile);
  }
}
