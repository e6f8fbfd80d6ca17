import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { digestOf } from '@ballast/shared/integrity';
import { LEAF_SIZE, PAGE_SIZE } from '@ballast/shared/memory';
import { digestMemory } from '@ballast/sender';

/** The second implementation; beside the source of this test, not beside what it is compiled to. */
const ROOT_PY = fileURLToPath(new URL('../../integrity/root.py', import.meta.url));

const hasPython = spawnSync('python3', ['-c', 'pass']).status === 0;

function python(...args: readonly string[]): string[] {
  return execFileSync('python3', [ROOT_PY, ...args], { encoding: 'utf8' })
    .trim()
    .split('\n');
}

/** A test that asks the second implementation. */
function pythonTest(
  title: string,
  implementation: (t: ExecutionContext, folder: string) => Promise<void> | void,
): void {
  test(title, async (t) => {
    if (!hasPython) {
      t.log('skipped: there is no python3 here');
      t.pass();
      return;
    }
    const folder = mkdtempSync(join(tmpdir(), 'ballast-root-'));
    t.teardown(() => {
      rmSync(folder, { recursive: true });
    });
    await implementation(t, folder);
  });
}

/** What a page is filled with; 0 is a page of zeros that is really written. */
type Pages = readonly (readonly [page: number, seed: number])[];

/** A sparse memory file: holes but for `pages`. */
function memoryFile(path: string, bytes: number, pages: Pages): string {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, bytes);
  for (const [page, seed] of pages) writeSync(fd, pageOf(seed), 0, PAGE_SIZE, page * PAGE_SIZE);
  closeSync(fd);
  return path;
}

function pageOf(seed: number): Buffer {
  const page = Buffer.alloc(PAGE_SIZE);
  if (seed !== 0) {
    for (let at = 0; at < PAGE_SIZE; at += 32) digestOf(Buffer.from(`${seed} ${at}`)).copy(page, at);
  }
  return page;
}

/** Three regions: whole leaves, single pages, leaves of zeros that were written, a last leaf that is short. */
function threeRegions(folder: string): string[] {
  const wholeLeaf: Pages = Array.from({ length: 16 }, (_, n) => [32 + n, 100 + n] as const);
  return [
    memoryFile(join(folder, 'a.mem'), 40 * LEAF_SIZE + 3 * PAGE_SIZE, [
      [0, 1],
      ...wholeLeaf,
      [63, 2],
      [100, 0],
      [101, 0],
      [335, 3],
      [642, 4],
    ]),
    memoryFile(join(folder, 'b.mem'), PAGE_SIZE, [[0, 5]]),
    memoryFile(join(folder, 'c.mem'), 300 * LEAF_SIZE + PAGE_SIZE, [
      [16 * 256 + 15, 6],
      [16 * 300, 0],
    ]),
  ];
}

pythonTest('the second BLAKE3 is BLAKE3', (t) => {
  const lengths = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 5120, 8192, 31744];
  const expected = lengths.map((length) => digestOf(Uint8Array.from({ length }, (_, n) => n % 251)).toString('hex'));
  t.deepEqual(python('blake3', ...lengths.map(String)), expected);
  // The first official test vector, so that both cannot be wrong in the same way.
  t.is(expected[0], 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262');
});

pythonTest('the root of several sparse regions is what a second implementation finds', async (t, folder) => {
  const files = threeRegions(folder);
  t.deepEqual(python('root', ...files), [(await digestMemory({ files })).root]);
});

pythonTest('the root of a memory of zeros is what a second implementation finds', async (t, folder) => {
  const files = [memoryFile(join(folder, 'zeros.mem'), 5 * LEAF_SIZE + PAGE_SIZE, [[7, 0]])];
  t.deepEqual(python('root', ...files), [(await digestMemory({ files })).root]);
});

pythonTest('ballast-send digest prints the root that a second implementation finds', (t, folder) => {
  const files = threeRegions(folder);
  const sender = createRequire(import.meta.url).resolve('@ballast/sender');
  const program = join(dirname(sender), '..', 'bin', 'ballast-send.js');
  const [root = ''] = python('root', ...files);
  const json = execFileSync(process.execPath, [program, 'digest', ...files, '--json'], { encoding: 'utf8' });
  t.like(JSON.parse(json), { event: 'digest', root });
  const plain = execFileSync(process.execPath, [program, 'digest', ...files], { encoding: 'utf8' });
  t.is(plain.trim(), root);
});

pythonTest('stale bytes under the balloon count as zeros', async (t, folder) => {
  const bytes = 2 * LEAF_SIZE;
  const stale = memoryFile(join(folder, 'stale.mem'), bytes, [
    [1, 1],
    [2, 2],
    [20, 3],
  ]);
  const clean = memoryFile(join(folder, 'clean.mem'), bytes, [[1, 1]]);
  const bitmap = join(folder, 'bitmap');
  writeFileSync(bitmap, Uint8Array.of(0b0000_0100, 0, 0b0001_0000, 0));
  const { root } = await digestMemory({ files: [stale], balloon: [{ kind: 'bitmap', path: bitmap }] });
  t.deepEqual(python('root', clean), [root]);
  t.notDeepEqual(python('root', stale), [root]);
});

pythonTest('the order of the regions is part of the root', async (t, folder) => {
  const [a = '', b = '', c = ''] = threeRegions(folder);
  const root = (await digestMemory({ files: [b, a, c] })).root;
  t.deepEqual(python('root', b, a, c), [root]);
  t.not(root, (await digestMemory({ files: [a, b, c] })).root);
});
