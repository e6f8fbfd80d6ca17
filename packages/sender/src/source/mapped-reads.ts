import { fstatSync } from 'node:fs';
import { mapShared, seekData, seekHole, type Mapping } from '@ballast/shared/memory';
import { endedEarly, readFailed, type PageReads } from './memory-source.js';

/** One window at a time is mapped: what was touched of it counts as this process's RSS. */
const WINDOW_BYTES = 256 << 20;

/**
 * Reads by copying out of a mapping, a window at a time. The file's size is checked before each window and each read,
 * which makes a file that shrinks a clean error most of the time, and a SIGBUS in the moment between: that is why this
 * is not the default. Copies, because bytes of a running guest change, and what is hashed must be what is sent.
 */
export function mappedReads(fd: number, path: string, bytes: number): PageReads {
  let window: { start: number; mapping: Mapping } | undefined;

  const windowAt = (offset: number): { start: number; mapping: Mapping } => {
    const start = offset - (offset % WINDOW_BYTES);
    if (window?.start === start) return window;
    window?.mapping.unmap();
    window = undefined;
    try {
      window = { start, mapping: mapShared(fd, start, Math.min(WINDOW_BYTES, bytes - start), false) };
    } catch (error) {
      throw readFailed(path, start, error);
    }
    return window;
  };

  /** What the file has at `offset`, and how far: a hole read through the mapping would be allocated. */
  const runAt = (offset: number, atMost: number): { isHole: boolean; length: number } => {
    try {
      const data = seekData(fd, offset) ?? bytes;
      const isHole = data > offset;
      const end = isHole ? data : (seekHole(fd, offset) ?? bytes);
      return { isHole, length: Math.min(end - offset, atMost) };
    } catch {
      // A filesystem that does not know its holes.
      return { isHole: false, length: atMost };
    }
  };

  return {
    read(into, offset) {
      const size = fstatSync(fd).size;
      if (size < offset + into.length) throw endedEarly(path, size);
      for (let done = 0; done < into.length;) {
        const position = offset + done;
        const run = runAt(position, into.length - done);
        if (run.isHole) {
          into.fill(0, done, done + run.length);
          done += run.length;
        } else {
          const { start, mapping } = windowAt(position);
          done += mapping.bytes.copy(into, done, position - start, position - start + run.length);
        }
      }
    },
    close() {
      window?.mapping.unmap();
      window = undefined;
    },
  };
}
