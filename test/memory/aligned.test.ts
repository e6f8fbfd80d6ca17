import test from 'ava';
import { addressOf, alignedBuffer } from '@ballast/shared/memory';

test('memory for pages begins on a cache line, is as long as it was to be, and zero', (t) => {
  // Kept, so that no two are the same.
  const kept = Array.from({ length: 64 }, (_, index) => alignedBuffer(1 + index * 4099));
  for (const [index, buffer] of kept.entries()) {
    t.is(addressOf(buffer) % 64, 0);
    t.is(buffer.length, 1 + index * 4099);
    t.true(buffer.every((byte) => byte === 0));
    buffer.fill(index + 1);
  }
  t.true(kept.every((buffer, index) => buffer.every((byte) => byte === index + 1)));
});

test('an address is that of the first byte of a view', (t) => {
  const memory = Buffer.alloc(100);
  t.is(addressOf(memory.subarray(7)) - addressOf(memory), 7);
});
