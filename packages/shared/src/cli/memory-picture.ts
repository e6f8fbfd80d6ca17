import { PAGE_SIZE } from '../memory/page.js';
import { PAGE_KINDS, type KindTotals, type MemoryCells, type PageKind } from './memory-cells.js';
import { gridOf, type Grid } from './memory-grid.js';
import { LEAST_COLUMNS, paint, type Colour, type TextStyle } from './terminal.js';
import { printable } from './terminal-text.js';
import { formatBytes, formatCount, formatPercent } from './units.js';

/** How a picture is drawn. */
export interface PictureStyle extends TextStyle {
  /** Rows that the picture has at most; 16 where it is left out. */
  readonly rows?: number;
}

/** One memory file of several. */
export interface NamedCells {
  readonly name: string;
  readonly cells: MemoryCells;
}

/** What a cell looks like. A cell with a single page of data never looks like one without. */
type Look = 'data' | 'mostData' | 'someData' | 'zero' | 'free' | 'unknown';

/**
 * Shades are data, and the more solid the more of it; rings and dots are not: the picture reads without any colour.
 */
const LOOKS: Readonly<Record<Look, { unicode: string; ascii: string; colour: Colour | undefined }>> = {
  data: { unicode: '█', ascii: 'D', colour: 'cyan' },
  mostData: { unicode: '▓', ascii: 'd', colour: 'cyan' },
  someData: { unicode: '▒', ascii: '+', colour: 'cyan' },
  zero: { unicode: '∘', ascii: 'z', colour: 'yellow' },
  free: { unicode: '·', ascii: '.', colour: 'grey' },
  unknown: { unicode: '?', ascii: '?', colour: 'red' },
};

/** A line of the totals. */
interface TotalsEntry {
  readonly look: Look;
  readonly name: string;
  readonly bytes: number;
  readonly extents: string;
}

const MIXED_LOOKS: readonly { look: Look; meaning: string }[] = [
  { look: 'mostData', meaning: 'mostly data' },
  { look: 'someData', meaning: 'some data' },
];

const GAP = '  ';
/** Columns of "100%", and of the kinds' names above them. */
const PERCENT_COLUMNS = 4;
/** Columns before what belongs to the line above; given up where a number needs them. */
const INDENT = 2;

/**
 * A memory as rows of cells, with the offset of each row at the left, the shares of its kinds at the right where there
 * is room, and the totals below. Lines are at most `style.columns` long, for 20 columns and more. Ends with a newline.
 *
 *      0 MiB  █████▓▒▒▒∘∘∘∘∘∘∘············  24%
 *     64 MiB  ························█···   3%
 */
export function renderMemoryPicture(cells: MemoryCells, style: PictureStyle, name?: string): string {
  return new Picture(cells, style).lines(name).join('\n') + '\n';
}

/** A picture for each memory file, under its name. */
export function renderMemoryPictures(regions: readonly NamedCells[], style: PictureStyle): string {
  return regions.map(({ name, cells }) => renderMemoryPicture(cells, style, name)).join('\n');
}

class Picture {
  readonly #cells: MemoryCells;
  readonly #style: PictureStyle;
  readonly #grid: Grid;
  /** Kinds that have a column of percentages: those that fit, data first. */
  readonly #shareColumns: readonly PageKind[];
  readonly #seen = new Set<Look>();

  constructor(cells: MemoryCells, style: PictureStyle) {
    this.#cells = cells;
    this.#style = { ...style, columns: Math.max(style.columns, LEAST_COLUMNS) };
    this.#grid = gridOf(cells, this.#style);
    const room = this.#style.columns - this.#grid.labelColumns - GAP.length - this.#grid.columns;
    this.#shareColumns = PAGE_KINDS.slice(0, Math.floor(room / (GAP.length + PERCENT_COLUMNS)));
  }

  lines(name: string | undefined): string[] {
    // The rows come first, since the legend explains only what occurs in them.
    const rows = this.#rows();
    return [
      ...this.#title(name),
      ...this.#header(),
      ...rows,
      '',
      this.#totalRow(),
      '',
      ...this.#totals(),
      ...this.#mixes(),
    ];
  }

  #title(name: string | undefined): string[] {
    const { columns, colour } = this.#style;
    const cell = formatBytes(this.#grid.bytesPerGlyph).replace(/\.0+ /, ' ');
    const facts = [formatBytes(this.#cells.memoryBytes), `a cell is ${cell}`];
    if (name === undefined) return flow(facts, columns);
    const shown = printable(name, columns);
    const [first = '', ...rest] = flow([shown, ...facts], columns);
    return [paint(shown, 'strong', colour) + first.slice(shown.length), ...rest];
  }

  #header(): string[] {
    if (this.#shareColumns.length === 0) return [''];
    const { labelColumns, columns } = this.#grid;
    return [' '.repeat(labelColumns + GAP.length + columns) + this.#shareColumns.map((kind) => GAP + kind).join('')];
  }

  #rows(): string[] {
    const { columns, glyphs, group, labels } = this.#grid;
    return labels.map((label, row) => {
      const looks: Look[] = [];
      for (let glyph = row * columns; glyph < Math.min((row + 1) * columns, glyphs); glyph++) {
        looks.push(this.#lookOf(glyph * group, (glyph + 1) * group));
      }
      const first = row * columns * group;
      return this.#row(label, looks, first, first + columns * group);
    });
  }

  /** All of the memory as one bar, each kind as long as its share. */
  #totalRow(): string {
    const { columns, labelColumns } = this.#grid;
    const totals = this.#cells.totals;
    const present = PAGE_KINDS.filter((kind) => totals[kind] > 0);
    const looks: Look[] = [];
    for (const kind of present) {
      // At least one glyph each: what is there must show.
      const length = Math.max(1, Math.round((totals[kind] / this.#cells.memoryBytes) * columns));
      for (let i = 0; i < length; i++) looks.push(kind);
    }
    const longest = present.reduce((a, b) => (totals[b] > totals[a] ? b : a), present[0] ?? 'free');
    const told = totals.data + totals.zero + totals.free === this.#cells.memoryBytes;
    // Rounding may have made one or two too many or too few: the longest part makes up for it.
    while (looks.length > columns) looks.splice(looks.indexOf(longest), 1);
    while (looks.length < columns && told) looks.splice(looks.indexOf(longest), 0, longest);
    return this.#row('all'.padStart(labelColumns), looks, 0, this.#cells.count);
  }

  #row(label: string, looks: readonly Look[], first: number, end: number): string {
    const shares = this.#shareColumns.map((kind) => GAP + this.#share(kind, first, end)).join('');
    const free = ' '.repeat(shares === '' ? 0 : this.#grid.columns - looks.length);
    return `${paint(label, 'grey', this.#style.colour)}${GAP}${this.#draw(looks)}${free}${shares}`;
  }

  #lookOf(first: number, end: number): Look {
    const { memoryBytes, cellBytes } = this.#cells;
    const { data, zero, free } = this.#cells.sum(first, end);
    const bytes = Math.min(end * cellBytes, memoryBytes) - first * cellBytes;
    const look = lookOf({ data, zero, free }, bytes);
    this.#seen.add(look);
    return look;
  }

  /** One escape sequence for each run of a colour, not for each glyph. */
  #draw(looks: readonly Look[]): string {
    const { unicode, colour } = this.#style;
    let drawn = '';
    let run = '';
    let runColour: Colour | undefined;
    for (const look of looks) {
      const { [unicode ? 'unicode' : 'ascii']: glyph, colour: glyphColour } = LOOKS[look];
      if (glyphColour !== runColour) {
        drawn += paint(run, runColour, colour);
        run = '';
        runColour = glyphColour;
      }
      run += glyph;
    }
    return drawn + paint(run, runColour, colour);
  }

  /** Share of a kind in the cells [first, end), in whole percent and four columns. Only nothing is 0, only all is 100. */
  #share(kind: PageKind, first: number, end: number): string {
    const { memoryBytes, cellBytes } = this.#cells;
    const part = this.#cells.sum(first, end)[kind];
    const text = wholePercent(part, Math.min(end * cellBytes, memoryBytes) - first * cellBytes);
    return paint(text.padStart(PERCENT_COLUMNS), part === 0 ? 'grey' : undefined, this.#style.colour);
  }

  /** The totals, which are the legend of the plain looks as well. */
  #totals(): string[] {
    const { totals, extents, memoryBytes } = this.#cells;
    const { columns } = this.#style;
    const entries: TotalsEntry[] = PAGE_KINDS.map((kind) => ({
      look: kind,
      name: kind,
      bytes: totals[kind],
      extents: counted(extents[kind], 'extent'),
    }));
    const unknown = memoryBytes - totals.data - totals.zero - totals.free;
    if (unknown > 0) entries.push({ look: 'unknown', name: 'n/a', bytes: unknown, extents: '' });
    const rows = entries.map(({ look, name, bytes, extents }) => ({
      head: `${this.#draw([look])} `,
      fields: [
        name,
        formatBytes(bytes),
        formatPercent(bytes, memoryBytes),
        counted(bytes / PAGE_SIZE, 'page'),
        extents,
      ],
      short: wholePercent(bytes, memoryBytes),
    }));
    const widths = [0, 1, 2, 3, 4].map((i) => Math.max(...rows.map((row) => row.fields[i]?.length ?? 0)));
    const wide = 2 + widths.reduce((sum, width) => sum + width + GAP.length, -GAP.length);
    if (wide <= columns) {
      return rows.map(({ head, fields }) => {
        const aligned = fields.map((field, i) =>
          i === 0 ? field.padEnd(widths[0] ?? 0) : field.padStart(widths[i] ?? 0),
        );
        return head + aligned.join(GAP).trimEnd();
      });
    }
    return rows.flatMap(({ head, fields: [name = '', bytes = '', , ...counts], short }) => [
      `${head}${name.padEnd(4)} ${bytes.padStart(8)} ${short.padStart(4)}`,
      ...flow(
        counts.map((count) => count.trimEnd()).filter((count) => count !== ''),
        columns - INDENT,
      ).map((line) => ' '.repeat(Math.min(INDENT, columns - line.length)) + line),
    ]);
  }

  /** What the looks of mixed cells mean, where there are any. */
  #mixes(): string[] {
    const items = MIXED_LOOKS.filter(({ look }) => this.#seen.has(look));
    const lines = flow(
      items.map(({ meaning }) => `_ ${meaning}`),
      this.#style.columns,
    );
    let next = 0;
    return lines.map((line) => line.replace(/_/g, () => this.#draw([items[next++]?.look ?? 'unknown'])));
  }
}

/** The look of a cell of `bytes` bytes: what most of it is, but data shows in any case. */
function lookOf({ data, zero, free }: KindTotals, bytes: number): Look {
  if (data >= bytes) return 'data';
  if (data > 0) return data * 2 >= bytes ? 'mostData' : 'someData';
  const unknown = bytes - zero - free;
  if (unknown > zero && unknown > free) return 'unknown';
  return zero >= free ? 'zero' : 'free';
}

function wholePercent(part: number, whole: number): string {
  if (part <= 0) return '0%';
  const percent = (part / whole) * 100;
  return percent < 1 ? '<1%' : `${Math.floor(percent)}%`;
}

function counted(count: number, unit: string): string {
  // Padded like its plural, so that the numbers of a column stand below each other.
  return `${formatCount(count)} ${unit}${count === 1 ? ' ' : 's'}`;
}

/** Items side by side, as many on a line as fit. */
function flow(items: readonly string[], columns: number): string[] {
  const lines: string[] = [];
  for (const item of items) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + GAP.length + item.length <= columns) {
      lines[lines.length - 1] = last + GAP + item;
    } else {
      lines.push(item);
    }
  }
  return lines;
}
