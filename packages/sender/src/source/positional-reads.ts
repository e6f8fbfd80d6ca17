import { readAt } from '@ballast/shared/memory';
import { endedEarly, readFailed, type PageReads } from './memory-source.js';

/** Reads with pread(2): never allocates a page of the source, never dies of a file that shrinks. */
export function positionalReads(fd: number, path: string): PageReads {
  return {
    read(into, offset) {
      for (let done = 0; done < into.length;) {
        let count: number;
        try {
          count = readAt(fd, done === 0 ? into : into.subarray(done), offset + done);
        } catch (error) {
          throw readFailed(path, offset + done, error);
        }
        if (count === 0) throw endedEarly(path, offset + done);
        done += count;
      }
    },
    close() {
      // The descriptor belongs to the region.
    },
  };
}
