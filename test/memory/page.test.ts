import { fc, testProp } from '@fast-check/ava';
import { MAX_REGION_BYTES, PAGE_SIZE, offsetOf, pageAt } from '@ballast/shared/memory';

/** Any page of the largest region, and often one near those where integers of 31 and 32 bits end. */
const anyPage = fc.oneof(
  fc.nat(MAX_REGION_BYTES / PAGE_SIZE),
  fc
    .tuple(fc.constantFrom(0, 2 ** 19, 2 ** 20, 2 ** 31, 2 ** 32, MAX_REGION_BYTES / PAGE_SIZE), fc.nat(3))
    .map(([border, distance]) => Math.max(border - distance, 0)),
);

testProp('where a page begins is exact, and tells the page', [anyPage], (t, page) => {
  t.is(offsetOf(page), Number(BigInt(page) * BigInt(PAGE_SIZE)));
  t.is(pageAt(offsetOf(page)), page);
});
