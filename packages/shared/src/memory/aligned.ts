import { addressOf } from '../libc.js';

/** Bytes of a processor's cache line, and of its widest registers. */
export const CACHE_LINE = 64;

/**
 * Zeros that begin on a cache line, for pages to be copied in and out. The C library gives large memory out 16 bytes behind
 * the beginning of a page; the kernel, whose pages begin where pages do, copies to there and from there at 0.7 to 0.9 of the
 * speed (bench/kernel/alignment.c).
 * @param length bytes
 */
export function alignedBuffer(length: number): Buffer {
  const memory = Buffer.from(new ArrayBuffer(length + CACHE_LINE));
  const start = (CACHE_LINE - (addressOf(memory) % CACHE_LINE)) % CACHE_LINE;
  return memory.subarray(start, start + length);
}
