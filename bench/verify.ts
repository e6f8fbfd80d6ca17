import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { PAGE, type Run } from './layout.js';
import { dataExtents, type Extent, union } from './sparse.js';

const READ = 1 << 20;
const TURN_BYTES = 64 << 20;
const ZEROS = Buffer.alloc(READ);

/**
 * Compares two files byte for byte, as cmp would, and fails at the first difference.
 * Places that are holes in both are equal without reading: only so can files of 1 TiB be compared.
 * @param emptied runs that the destination must hold as zeros, whatever the source holds there: the balloon
 */
export async function verifySame(source: string, destination: string, emptied: readonly Run[] = []): Promise<void> {
  const from = openSync(source, 'r');
  const to = openSync(destination, 'r');
  try {
    const { size } = fstatSync(from);
    const { size: reached } = fstatSync(to);
    if (size !== reached) throw new Error(`${destination} has ${reached} bytes; expected the ${size} of ${source}`);
    const extents = union([...dataExtents(from, size)], [...dataExtents(to, size)]);
    const expected = Buffer.allocUnsafeSlow(READ);
    const found = Buffer.allocUnsafeSlow(READ);
    let sinceTurn = 0;
    for (const { start, end, empty } of cutAtEmptied(extents, emptied)) {
      const length = end - start;
      readAll(to, found, start, length);
      if (!empty) readAll(from, expected, start, length);
      const wanted = empty ? ZEROS : expected;
      if (wanted.compare(found, 0, length, 0, length) !== 0) {
        const at = start + firstDifference(wanted, found);
        throw new Error(`${destination} differs at byte ${at}${empty ? ', which is under the balloon' : ''}`);
      }
      sinceTurn += length;
      if (sinceTurn >= TURN_BYTES) {
        sinceTurn = 0;
        await nextTurn();
      }
    }
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

/** Cuts extents into pieces of one read, each of which lies wholly inside or wholly outside what was emptied. */
function* cutAtEmptied(extents: readonly Extent[], emptied: readonly Run[]): Generator<Extent & { empty: boolean }> {
  const runs = emptied.map(({ start, length }) => ({ start: start * PAGE, end: (start + length) * PAGE }));
  let next = 0;
  for (const extent of extents) {
    for (let start = extent.start; start < extent.end;) {
      while ((runs[next]?.end ?? Infinity) <= start) next += 1;
      const run = runs[next] ?? { start: Infinity, end: Infinity };
      const empty = run.start <= start;
      const end = Math.min(extent.end, start + READ, empty ? run.end : run.start);
      yield { start, end, empty };
      start = end;
    }
  }
}

function readAll(fd: number, buffer: Buffer, position: number, length: number): void {
  for (let done = 0; done < length;) {
    const count = readSync(fd, buffer, done, length - done, position + done);
    if (count === 0) throw new Error(`the file ended at ${position + done} while it was compared`);
    done += count;
  }
}

function firstDifference(expected: Buffer, found: Buffer): number {
  let at = 0;
  while (expected[at] === found[at]) at += 1;
  return at;
}
