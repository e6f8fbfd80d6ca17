import { BallastError, ErrorCode } from '../errors.js';
import { withBalloonFile, wholePages, type BalloonFile } from './balloon-file.js';
import { ExtentSet } from './extents.js';
import { PAGE_SIZE } from './page.js';

/** Bytes of the bitmap that are read at once: 32 GiB of memory. */
const CHUNK_BYTES = 1024 * 1024;

/**
 * Reads a balloon bitmap: one bit for each 4 KiB page, little-endian bit order, 1 = ballooned out. Bit n is the page
 * at offset n × 4096 of the memory file, not a guest-physical page number.
 * @param memoryBytes size of the memory file that the bitmap speaks of
 * @returns the bytes that are ballooned out
 * @throws BallastError BALLOON_MAP when the length does not fit the memory or a bit beyond its end is set; NOT_FOUND,
 *   BAD_FILE or READ when the file cannot be used
 */
export function readBalloonBitmap(path: string, memoryBytes: number): ExtentSet {
  return withBalloonFile(path, (file) => {
    const pages = Math.ceil(memoryBytes / PAGE_SIZE);
    checkLength(file, pages, memoryBytes);
    const free = ExtentSet.builder();
    let pageBefore = 0;
    let runStart = 0;
    const words = new Uint32Array(CHUNK_BYTES / 4);
    const chunk = Buffer.from(words.buffer);
    for (let at = 0; at < file.bytes; at += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, file.bytes - at);
      file.read(chunk.subarray(0, length), at);
      if (at + length === file.bytes) checkLastByte(path, chunk[length - 1] ?? 0, pages);
      // The next zero byte, if there is one, ends the last run.
      chunk.fill(0, length);
      const used = Math.ceil(length / 4);
      for (let index = 0; index < used; index++) {
        const word = words[index] ?? 0;
        // A bit for each page that differs from the page before it: none in a word of all zeros or all ones.
        let changes = word ^ ((word << 1) | pageBefore);
        pageBefore = word >>> 31;
        while (changes !== 0) {
          const bit = 31 - Math.clz32(changes & -changes);
          const offset = (at * 8 + index * 32 + bit) * PAGE_SIZE;
          if (((word >>> bit) & 1) === 1) runStart = offset;
          else free.add(runStart, Math.min(offset, memoryBytes));
          changes &= changes - 1;
        }
      }
    }
    if (pageBefore === 1) free.add(runStart, memoryBytes);
    return free.build();
  });
}

/**
 * The bitmap that `readBalloonBitmap` reads.
 * @param extents bytes that are ballooned out; only whole pages of them are marked
 * @param memoryBytes size of the memory file
 */
export function encodeBalloonBitmap(extents: ExtentSet, memoryBytes: number): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(Math.ceil(memoryBytes / PAGE_SIZE) / 8));
  for (const { start, end } of wholePages(extents, memoryBytes)) {
    setBits(bitmap, start / PAGE_SIZE, Math.ceil(end / PAGE_SIZE));
  }
  return bitmap;
}

/** Sets the bits [first, last) in little-endian bit order. */
function setBits(bitmap: Uint8Array, first: number, last: number): void {
  const firstByte = Math.floor(first / 8);
  const lastByte = Math.floor(last / 8);
  const fromFirst = 0xff << (first % 8);
  const beforeLast = (1 << (last % 8)) - 1;
  if (firstByte === lastByte) {
    bitmap[firstByte] = (bitmap[firstByte] ?? 0) | (fromFirst & beforeLast);
    return;
  }
  bitmap[firstByte] = (bitmap[firstByte] ?? 0) | fromFirst;
  bitmap.fill(0xff, firstByte + 1, lastByte);
  if (beforeLast !== 0) bitmap[lastByte] = (bitmap[lastByte] ?? 0) | beforeLast;
}

function checkLength(file: BalloonFile, pages: number, memoryBytes: number): void {
  const expected = Math.ceil(pages / 8);
  if (file.bytes === expected) return;
  throw new BallastError(
    ErrorCode.BALLOON_MAP,
    `the balloon bitmap ${file.path} has ${file.bytes} bytes; expected ${expected}, one bit for each of the ${pages} pages of ${memoryBytes} bytes of memory: make it again from this memory file`,
  );
}

function checkLastByte(path: string, last: number, pages: number): void {
  const used = pages % 8;
  const beyond = used === 0 ? 0 : last >>> used;
  if (beyond === 0) return;
  const bit = pages + 31 - Math.clz32(beyond & -beyond);
  throw new BallastError(
    ErrorCode.BALLOON_MAP,
    `the balloon bitmap ${path} has bit ${bit} set, but the memory has ${pages} pages, so that bits from ${pages} on must be 0: check the bit order (lowest bit first) and that the bitmap belongs to this memory file`,
  );
}
