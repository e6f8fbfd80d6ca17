import { stripVTControlCharacters } from 'node:util';
import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import {
  MemoryCells,
  pictureCapacity,
  renderMemoryPicture,
  renderMemoryPictures,
  type PageKind,
  type PictureStyle,
} from '@ballast/shared/cli';
import { PAGE_SIZE } from '@ballast/shared/memory';

const PLAIN: PictureStyle = { columns: 80, colour: false, unicode: false };
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const UNITS = new Map([
  ['KiB', 1024],
  ['MiB', MIB],
  ['GiB', GIB],
]);

/** What a reader of the picture sees: the glyphs in order, and how many bytes each stands for. */
function read(picture: string): { glyphs: string[]; bytesPerGlyph: number } {
  const plain = stripVTControlCharacters(picture);
  const [, size = '', unit = ''] = /a cell is (\d+) (\w+)/.exec(plain) ?? [];
  const rows = [...plain.replace(/^.*a cell is.*$/m, '').matchAll(/^ *[\d.]+ (?:B|[KMGT]iB) {2}(\S+)/gm)].map(
    (match) => match[1] ?? '',
  );
  return { glyphs: Array.from(rows.join('')), bytesPerGlyph: Number(size) * (UNITS.get(unit) ?? NaN) };
}

function drawn(cells: MemoryCells, style: PictureStyle): string[] {
  return read(renderMemoryPicture(cells, style)).glyphs;
}

test('each kind has its glyph, and a cell with a single page of data shows it', (t) => {
  const cells = new MemoryCells(8 * MIB, 8);
  cells.add('data', 0, MIB);
  cells.add('zero', MIB, 2 * MIB);
  cells.add('free', 2 * MIB, 3 * MIB);
  cells.add('data', 3 * MIB, 3 * MIB + MIB / 2);
  cells.add('free', 3 * MIB + MIB / 2, 4 * MIB);
  cells.add('free', 4 * MIB, 5 * MIB - PAGE_SIZE);
  cells.add('data', 5 * MIB - PAGE_SIZE, 5 * MIB);
  cells.add('zero', 5 * MIB, 6 * MIB - MIB / 4);
  cells.add('free', 6 * MIB - MIB / 4, 7 * MIB);
  t.deepEqual(drawn(cells, PLAIN), ['D', 'z', '.', 'd', '+', 'z', '.', '?']);
  t.deepEqual(drawn(cells, { ...PLAIN, unicode: true }), ['█', '∘', '·', '▓', '▒', '∘', '·', '?']);
});

test('the picture of a small memory, as it is seen', (t) => {
  const cells = new MemoryCells(GIB, pictureCapacity({ columns: 40, rows: 4 }));
  cells.add('data', 0, 100 * MIB);
  cells.add('zero', 100 * MIB, 300 * MIB);
  cells.add('free', 300 * MIB, GIB);
  t.is(
    renderMemoryPicture(cells, { columns: 40, rows: 4, colour: false, unicode: false }, 'guest\x1b.mem'),
    [
      'guest\\x1b.mem  1.00 GiB',
      'a cell is 16 MiB',
      '                                   data',
      '  0 MiB  DDDDDD+zzzzzzzzzzzz.....   26%',
      '384 MiB  ........................    0%',
      '768 MiB  ................            0%',
      '',
      '    all  DDzzzzz.................    9%',
      '',
      'D data  100 MiB   9%',
      '  25,600 pages  1 extent',
      'z zero  200 MiB  19%',
      '  51,200 pages  1 extent',
      '. free  724 MiB  70%',
      '  185,344 pages  1 extent',
      '+ some data',
      '',
    ].join('\n'),
  );
});

test('colours are used where they are wanted, and only there', (t) => {
  const cells = new MemoryCells(4 * MIB, 4);
  cells.add('data', 0, 2 * MIB);
  cells.add('zero', 2 * MIB, 4 * MIB);
  // eslint-disable-next-line no-control-regex
  t.notRegex(renderMemoryPicture(cells, PLAIN, 'x'), /\x1b/);
  const coloured = renderMemoryPicture(cells, { ...PLAIN, colour: true }, 'x');
  t.true(coloured.includes('\x1b[36mDD\x1b[0m\x1b[33mzz\x1b[0m'));
  t.is(stripVTControlCharacters(coloured), renderMemoryPicture(cells, PLAIN, 'x'));
});

test('several regions have a picture each, under their names', (t) => {
  const cells = new MemoryCells(MIB, 16);
  cells.add('free', 0, MIB);
  const pictures = renderMemoryPictures(
    [
      { name: 'ram0', cells },
      { name: 'ram1', cells },
    ],
    PLAIN,
  );
  t.is(pictures, `${renderMemoryPicture(cells, PLAIN, 'ram0')}\n${renderMemoryPicture(cells, PLAIN, 'ram1')}`);
});

test('cells are powers of two of pages, and the last may be short', (t) => {
  const cells = new MemoryCells(17 * MIB, 16);
  t.is(cells.cellBytes, 2 * MIB);
  t.is(cells.count, 9);
  cells.add('data', 0, 17 * MIB);
  t.deepEqual(drawn(cells, PLAIN), Array<string>(9).fill('D'));
  t.is(new MemoryCells(3 * PAGE_SIZE, 1000).count, 3);
});

test('neighbours of one kind are one extent', (t) => {
  const cells = new MemoryCells(MIB, 16);
  for (let page = 0; page < 8; page++) cells.add('data', page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  cells.add('zero', 8 * PAGE_SIZE, 9 * PAGE_SIZE);
  cells.add('data', 9 * PAGE_SIZE, MIB);
  t.deepEqual(cells.extents, { data: 2, zero: 1, free: 0 });
  t.deepEqual(cells.totals, { data: MIB - PAGE_SIZE, zero: PAGE_SIZE, free: 0 });
});

test('what lies outside the memory is refused', (t) => {
  const cells = new MemoryCells(MIB, 16);
  for (const [start, end] of [
    [-1, 1],
    [0, MIB + 1],
    [2, 1],
    [NaN, 1],
  ] as const) {
    t.throws(
      () => {
        cells.add('data', start, end);
      },
      { instanceOf: RangeError },
    );
  }
});

test('a terabyte of nothing is told in one call', (t) => {
  const cells = new MemoryCells(2 ** 40, pictureCapacity(PLAIN));
  cells.add('free', 0, 2 ** 40);
  const picture = renderMemoryPicture(cells, PLAIN);
  t.regex(picture, /^960 GiB {2}\.{64}/m);
  t.regex(picture, /\. free {2}1\.00 TiB {2}100 % {2}268,435,456 pages {2}1 extent$/m);
});

const kinds = fc.constantFrom<PageKind>('data', 'zero', 'free');
/** Runs of pages: mostly free, as a ballooned guest is, so that lonely data pages are common. */
const runs = fc.array(fc.record({ kind: kinds, pages: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 3000 })) }), {
  minLength: 1,
  maxLength: 40,
});
const style = fc.record({
  columns: fc.integer({ min: 20, max: 250 }),
  colour: fc.boolean(),
  unicode: fc.boolean(),
  rows: fc.integer({ min: 1, max: 40 }),
});

testProp(
  'no page of data is ever invisible, and none is shown where there is none',
  [runs, style, fc.integer({ min: 1, max: 5000 })],
  (t, list, drawing, mostCells) => {
    const memoryBytes = list.reduce((sum, run) => sum + run.pages, 0) * PAGE_SIZE;
    const cells = new MemoryCells(memoryBytes, mostCells);
    const dataPages: number[] = [];
    let page = 0;
    for (const { kind, pages } of list) {
      cells.add(kind, page * PAGE_SIZE, (page + pages) * PAGE_SIZE);
      if (kind === 'data') for (let i = 0; i < pages; i++) dataPages.push(page + i);
      page += pages;
    }
    const { glyphs, bytesPerGlyph } = read(renderMemoryPicture(cells, drawing));
    t.is(glyphs.length, Math.ceil(memoryBytes / bytesPerGlyph));
    const expected = new Set(dataPages.map((each) => Math.floor((each * PAGE_SIZE) / bytesPerGlyph)));
    const dataGlyphs = drawing.unicode ? ['█', '▓', '▒'] : ['D', 'd', '+'];
    const shown = glyphs.flatMap((glyph, index) => (dataGlyphs.includes(glyph) ? [index] : []));
    t.deepEqual(shown, [...expected]);
  },
);

testProp(
  'no line is longer than the terminal, whatever the size of the memory',
  [fc.integer({ min: 1, max: 2 ** 34 }), kinds, style, fc.string({ unit: 'binary', maxLength: 300 })],
  (t, pages, kind, drawing, name) => {
    const cells = new MemoryCells(pages * PAGE_SIZE, pictureCapacity(drawing));
    cells.add(kind, 0, Math.ceil(pages / 3) * PAGE_SIZE);
    const lines = stripVTControlCharacters(renderMemoryPicture(cells, drawing, name)).split('\n');
    for (const line of lines) t.true(Array.from(line).length <= drawing.columns, line);
  },
);
