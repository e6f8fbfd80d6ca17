import { join } from 'node:path';
import { fc, testProp } from '@fast-check/ava';
import { mapMemory } from '@ballast/sender';
import { countsEveryPage, temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, countPages, placed, writeMemoryFile, type Layout } from '../support/memory-file.js';

/** Data and holes in turn; single pages often, since those are asked for in another way than runs. */
const layouts = fc
  .tuple(fc.boolean(), fc.array(fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 40 })), { minLength: 1 }))
  .map(([isData, lengths]): Layout =>
    lengths.map((pages, index) => ({ fill: (index % 2 === 0) === isData ? Fill.data : Fill.hole, pages })),
  );

testProp(
  'the holes of a file are found wherever single pages and runs of data lie',
  [layouts],
  async (t, layout) => {
    const folder = await temporaryFolder(t);
    if (!(await countsEveryPage(folder))) {
      t.log('skipped: only tmpfs has a hole for each page that was not written');
      t.pass();
      return;
    }
    const file = join(folder, 'guest.mem');
    writeMemoryFile(file, layout);
    const [map] = await mapMemory({ files: [file], balloon: [{ kind: 'holes' }] });
    const holes = [...placed(layout)].filter(({ fill }) => fill === Fill.hole);
    t.is(map?.memoryBytes, countPages(layout) * PAGE);
    t.deepEqual(
      [...(map?.free ?? [])],
      holes.map(({ start, pages }) => ({ start: start * PAGE, end: (start + pages) * PAGE })),
    );
  },
  { numRuns: 200 },
);
