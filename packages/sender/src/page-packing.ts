import { PAGE_SIZE } from '@ballast/shared/memory';

/**
 * Moves those of the raw pages at `at` that `keep` names down to `start`, one after the other, and returns them as one
 * run of bytes, a view of `memory`.
 * @param start at most `at`
 * @param keep bit n stands for the n-th page at `at`
 */
export function packPages(memory: Buffer, start: number, at: number, keep: number): Buffer {
  let end = start;
  for (let rest = keep, from = at; rest !== 0;) {
    const skip = trailingZeros(rest);
    const run = trailingZeros(~(rest >>> skip));
    from += skip * PAGE_SIZE;
    const length = run * PAGE_SIZE;
    if (from !== end) memory.copyWithin(end, from, from + length);
    end += length;
    from += length;
    rest >>>= skip + run;
  }
  return memory.subarray(start, end);
}

function trailingZeros(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}
