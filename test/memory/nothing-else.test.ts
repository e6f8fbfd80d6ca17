import test from 'ava';
import { RegionManifest, digestOf } from '@ballast/shared/integrity';
import { checkNothingElse } from '@ballast/receiver/nothing-else';
import type { RegionStore } from '@ballast/receiver/region-store';
import { LEAF, PAGE } from '../support/memory-file.js';

/** A file in which all is data for its filesystem, and zeros but for one byte. */
function fileWith(bytes: number, at: number): RegionStore {
  return {
    bytes,
    mayHoldPages: false,
    shared: { file: undefined, bytes, mayHoldPages: false },
    nextData: (offset) => (offset < bytes ? { start: offset, end: bytes } : undefined),
    read(offset, into) {
      into.fill(0);
      if (at >= offset && at < offset + into.length) into[at - offset] = 1;
    },
    nextDataStart: fail,
    write: fail,
    copyFrom: fail,
    release: fail,
    close: fail,
  };
}

function fail(): never {
  throw new Error('not for a search');
}

async function never(): Promise<void> {
  await Promise.resolve();
}

test('a byte that nobody sent is found, wherever it is, and the page of it told', async (t) => {
  const bytes = 4 * LEAF + 3 * PAGE;
  const manifest = new RegionManifest(bytes);
  const digest = digestOf(Buffer.alloc(PAGE, 'x'));
  manifest.set(1, 0xffff, digest);
  manifest.set(2, 0x00f0, digest);
  for (let page = 0; page < bytes / PAGE; page++) {
    const mask = manifest.mask(Math.floor(page / 16));
    const check = checkNothingElse(fileWith(bytes, page * PAGE + 5), manifest, 0, never);
    if ((mask & (1 << (page % 16))) !== 0) await t.notThrowsAsync(check, `page ${page} was sent`);
    else await t.throwsAsync(check, { code: 'E_DIGEST_MISMATCH', message: new RegExp(`offset ${page * PAGE} `) });
  }
});

test('a long search for what nobody sent gives others their turn, and ends when they say so', async (t) => {
  const bytes = 2 ** 45;
  const check = checkNothingElse(fileWith(bytes, bytes), new RegionManifest(bytes), 0, async () => {
    await Promise.resolve();
    throw new Error('enough');
  });
  await t.throwsAsync(check, { message: 'enough' });
});
