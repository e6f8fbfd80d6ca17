import { fstatSync } from 'node:fs';
import { isZero } from '@ballast/shared/integrity';
import { mapShared, seekData, seekHole, type Mapping } from '@ballast/shared/memory';
import { endedEarly, readFailed, type PageReads } from './memory-source.js';

/** One window at a time is mapped: what was touched of it counts as this process's RSS. */
const WINDOW_BYTES = 256 << 20;
/** Bytes that are made ready at a time, and for which the file's size, once checked, is taken for granted. */
const READY_BYTES = 2 << 20;

/**
 * Reads through a mapping, a window at a time. Zeros are found where they are; what is not zero is copied out, because
 * bytes of a running guest change, and what is hashed must be what is sent. The file's size is checked every 2 MiB, which
 * makes a file that shrinks a clean error most of the time, and a SIGBUS in the moment between: that is why this is not
 * the default.
 */
export function mappedReads(fd: number, path: string, bytes: number): PageReads {
  let window: { start: number; readonly mapping: Mapping } | undefined;
  /** The run of data or hole that was asked for last. */
  let run = { isHole: true, start: 0, end: 0 };
  let readyFrom = 0;
  let readyTo = 0;

  const windowAt = (offset: number): { start: number; mapping: Mapping } => {
    const start = offset - (offset % WINDOW_BYTES);
    if (window?.start === start) return window;
    try {
      window ??= { start: 0, mapping: mapShared(fd, 0, Math.min(WINDOW_BYTES, bytes), false) };
      window.mapping.slide(start, Math.min(WINDOW_BYTES, bytes - start));
      window.start = start;
    } catch (error) {
      throw readFailed(path, start, error);
    }
    return window;
  };

  /** What the file has at `offset`, and how far: a hole read through the mapping would be allocated. */
  const runAt = (offset: number, atMost: number): { isHole: boolean; length: number } => {
    if (offset < run.start || offset >= run.end) {
      try {
        const data = seekData(fd, offset) ?? bytes;
        const isHole = data > offset;
        run = { isHole, start: offset, end: isHole ? data : (seekHole(fd, offset) ?? bytes) };
      } catch {
        // A filesystem that does not know its holes.
        run = { isHole: false, start: offset, end: bytes };
      }
    }
    return { isHole: run.isHole, length: Math.min(run.end - offset, atMost) };
  };

  /** What the mapping shows of a run of data at `offset`, ready to be looked at. */
  const lookAt = (offset: number, length: number): { bytes: Buffer; at: number } => {
    const { start, mapping } = windowAt(offset);
    if (offset + length > readyTo || offset < readyFrom) {
      const { size } = fstatSync(fd);
      if (size < offset + length) throw endedEarly(path, size);
      const end = Math.min(offset + READY_BYTES, run.end, start + WINDOW_BYTES, size);
      mapping.populate(offset - start, end - offset);
      readyFrom = offset;
      readyTo = end;
    }
    return { bytes: mapping.bytes, at: offset - start };
  };

  return {
    read(into, offset) {
      for (let done = 0; done < into.length;) {
        const position = offset + done;
        const { isHole, length } = runAt(position, into.length - done);
        if (isHole) {
          into.fill(0, done, done + length);
          done += length;
        } else {
          const { bytes: shown, at } = lookAt(position, length);
          done += shown.copy(into, done, at, at + length);
        }
      }
    },
    isZero(offset, length) {
      for (let done = 0; done < length;) {
        const position = offset + done;
        const piece = runAt(position, length - done);
        if (!piece.isHole) {
          const { bytes: shown, at } = lookAt(position, piece.length);
          if (!isZero(shown, at, at + piece.length)) return false;
        }
        done += piece.length;
      }
      return true;
    },
    close() {
      window?.mapping.unmap();
      window = undefined;
    },
  };
}
