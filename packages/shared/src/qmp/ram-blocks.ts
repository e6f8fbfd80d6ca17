import { BallastError, ErrorCode } from '../errors.js';

/** One block of guest memory as QEMU's migration knows it. */
export interface RamBlock {
  readonly name: string;
  /** Bytes in use. */
  readonly usedBytes: number;
  /** Bytes that it may grow to. */
  readonly totalBytes: number;
}

/**
 * Reads the text that `x-query-ramblock` returns (ram_block_format() in QEMU's softmmu/physmem.c):
 *
 *                   Block Name    PSize              Offset               Used              Total
 *                         ram0    4 KiB  0x0000000000000000 0x0000000020000000 0x0000000020000000
 *
 * Newer versions add columns behind these.
 * @throws BallastError QMP when a line is not understood: then a block might be forgotten
 */
export function parseRamBlocks(text: string): RamBlock[] {
  const [, ...lines] = text.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => {
    const match = /^\s*(\S.*?)\s+[\d.]+ [KMG]?i?B\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?:\s|$)/i.exec(line);
    const [, name, used, total] = match ?? [];
    if (name === undefined || used === undefined || total === undefined) {
      throw new BallastError(
        ErrorCode.QMP,
        `QEMU listed a block of memory in a form that is not known here ('${line.trim().slice(0, 200)}'); this version of QEMU cannot be used`,
      );
    }
    return { name, usedBytes: Number.parseInt(used, 16), totalBytes: Number.parseInt(total, 16) };
  });
}
