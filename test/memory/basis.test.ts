import { closeSync, constants, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Basis } from '@ballast/receiver/basis';
import { OldCopy } from '@ballast/receiver/old-copy';
import { PositionalStore } from '@ballast/receiver/region-store';
import { LEAF_PAGES, PAGE_SIZE, type Extent } from '@ballast/shared/memory';
import { temporaryFolder } from '../support/folder.js';
import { Fill, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { openPair } from '../transport/pair.js';

/**
 * What looking at a file costs, counted and not timed: pages that were read, pages that the filesystem went over to
 * find the end of data (tmpfs takes a step for each), and one for each question.
 */
class Work {
  done = 0;

  counts(into: Buffer): void {
    this.done += into.length / PAGE_SIZE;
  }

  countsRun(run: Extent | undefined): Extent | undefined {
    this.done += 1 + (run === undefined ? 0 : (run.end - run.start) / PAGE_SIZE);
    return run;
  }
}

class CountedStore extends PositionalStore {
  readonly work = new Work();

  override read(offset: number, into: Buffer): void {
    this.work.counts(into);
    super.read(offset, into);
  }

  override nextData(offset: number): Extent | undefined {
    return this.work.countsRun(super.nextData(offset));
  }

  override nextDataStart(offset: number): number | undefined {
    this.work.done++;
    return super.nextDataStart(offset);
  }
}

class CountedCopy extends OldCopy {
  readonly work = new Work();

  override read(offset: number, into: Buffer): void {
    this.work.counts(into);
    super.read(offset, into);
  }

  override nextData(offset: number): Extent | undefined {
    return this.work.countsRun(super.nextData(offset));
  }

  override nextDataStart(offset: number): number | undefined {
    this.work.done++;
    return super.nextDataStart(offset);
  }
}

function opened(
  t: ExecutionContext,
  path: string,
  layout: Layout,
  flags: string | number = 'r',
): { fd: number; path: string; bytes: number } {
  writeMemoryFile(path, layout);
  const fd = openSync(path, flags);
  t.teardown(() => {
    closeSync(fd);
  });
  return { fd, path, bytes: statSync(path).size };
}

/** Tells all that a region holds over a real connection. @returns how many leaves were told, and what finding them took */
async function tell(
  t: ExecutionContext,
  { here, there, flags = 'r' }: { here: Layout; there?: Layout; flags?: string | number },
): Promise<{ leaves: number; work: number; failures: string[] }> {
  const folder = await temporaryFolder(t);
  const file = opened(t, join(folder, 'copy.mem.partial'), here);
  const store = new CountedStore({ ...file, hugePageBytes: undefined, countsPages: true }, file.bytes, true);
  let old: CountedCopy | undefined;
  if (there !== undefined) {
    const { fd, path, bytes } = opened(t, join(folder, 'old.mem'), there, flags);
    old = new CountedCopy(fd, path, bytes);
  }
  const failures: string[] = [];
  const { dialled, accepted } = await openPair(t, 'straight');
  const telling = new Basis(store, old, ({ code }) => failures.push(code)).tell(dialled, 0);
  let leaves = 0;
  for (let isOver = false; !isOver;) {
    const { frame } = await accepted.next();
    const count = frame?.header.count ?? 0;
    leaves += count;
    isOver = count === 0;
  }
  await telling;
  return { leaves, work: store.work.done + (old?.work.done ?? 0), failures };
}

const LEAVES = 512;
const ALL_DATA: Layout = [{ fill: Fill.data, pages: LEAVES * LEAF_PAGES }];
const ALL_HOLE: Layout = [{ fill: Fill.hole, pages: LEAVES * LEAF_PAGES }];
/** A page of data in every fourth leaf, and holes between. */
const SCATTERED: Layout = Array.from({ length: LEAVES / 4 }, () => [
  { fill: Fill.speck, pages: 1 },
  { fill: Fill.hole, pages: 4 * LEAF_PAGES - 1 },
]).flat();

for (const [what, files, leaves] of [
  ['a run of data', { here: ALL_DATA }, LEAVES],
  ['a run of data in an older copy', { here: ALL_HOLE, there: ALL_DATA }, LEAVES],
  ['a run of data in both', { here: ALL_DATA, there: ALL_DATA }, LEAVES],
  ['scattered pages', { here: SCATTERED, there: SCATTERED }, LEAVES / 4],
] as const) {
  test(`finding what is held of ${what} takes work that grows with the data, not with its square`, async (t) => {
    const found = await tell(t, files);
    t.is(found.leaves, leaves);
    t.deepEqual(found.failures, []);
    // Each page is read once from each file, and each file is asked once a leaf where data begins.
    const enough = 2 * leaves * LEAF_PAGES + 2 * (leaves + 1);
    t.true(found.work >= leaves * LEAF_PAGES, `only ${found.work} steps were counted`);
    t.true(found.work <= enough, `${found.work} steps for ${leaves} leaves, ${enough} would do`);
  });
}

test('an older copy that cannot be read is said to be so once, and nothing of it is told', async (t) => {
  // Where its data is can be asked of a file that is open for writing alone; each read of it fails.
  const { leaves, failures } = await tell(t, { here: SCATTERED, there: ALL_DATA, flags: constants.O_WRONLY });
  t.is(leaves, LEAVES / 4);
  t.deepEqual(failures, ['E_READ']);
});
