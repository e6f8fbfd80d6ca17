import type { MemoryCells } from './memory-cells.js';
import { LEAST_COLUMNS } from './terminal.js';
import { formatBytes } from './units.js';

/** How the cells of a memory are laid out in rows. */
export interface Grid {
  /** Glyphs of a full row. */
  readonly columns: number;
  /** Glyphs in all. */
  readonly glyphs: number;
  /** Cells behind one glyph: 1 unless the cells are more than there is room for. */
  readonly group: number;
  readonly bytesPerGlyph: number;
  /** The offset of each row, padded to `labelColumns`. */
  readonly labels: readonly string[];
  readonly labelColumns: number;
}

interface GridStyle {
  readonly columns: number;
  readonly rows?: number;
}

const DEFAULT_ROWS = 16;
/** Columns of the longest offset ("11.25 GiB"), and of the gap behind it. */
const MOST_LABEL_COLUMNS = 9;
const MARGIN = MOST_LABEL_COLUMNS + 2;

const UNITS: readonly { readonly name: string; readonly bytes: number }[] = [
  { name: 'TiB', bytes: 2 ** 40 },
  { name: 'GiB', bytes: 2 ** 30 },
  { name: 'MiB', bytes: 2 ** 20 },
  { name: 'KiB', bytes: 2 ** 10 },
];

/** Number of cells that fill a picture of this style: what to make MemoryCells with. */
export function pictureCapacity(style: GridStyle): number {
  return rowColumns(style.columns) * rowLimit(style);
}

/** Lays out `cells`; where they are more than the style has room for, neighbours are drawn as one. */
export function gridOf(cells: MemoryCells, style: GridStyle): Grid {
  const columns = rowColumns(style.columns);
  const capacity = columns * rowLimit(style);
  let group = 1;
  while (Math.ceil(cells.count / group) > capacity) group *= 2;
  const glyphs = Math.ceil(cells.count / group);
  const rows = Math.ceil(glyphs / columns);
  const bytesPerGlyph = cells.cellBytes * group;
  const labels = rowLabels(rows, columns * bytesPerGlyph);
  const labelColumns = Math.max(3, ...labels.map((label) => label.length));
  return {
    columns,
    glyphs,
    group,
    bytesPerGlyph,
    labels: labels.map((label) => label.padStart(labelColumns)),
    labelColumns,
  };
}

function rowLimit({ rows = DEFAULT_ROWS }: GridStyle): number {
  return Math.max(1, Math.floor(rows));
}

/** Glyphs of a row: the largest of 2^n, 3 x 2^n and 5 x 2^n that fits, so that the offsets of rows are round. */
function rowColumns(columns: number): number {
  const room = Math.max(columns, LEAST_COLUMNS) - MARGIN;
  let best = 1;
  for (const factor of [1, 3, 5]) {
    for (let width = factor; width <= room; width *= 2) best = Math.max(best, width);
  }
  return best;
}

/** Offsets in the largest unit of which a row is whole quarters: all rows have the same unit, and are exact. */
function rowLabels(rows: number, rowBytes: number): string[] {
  const unit = UNITS.find(({ bytes }) => rowBytes % (bytes / 4) === 0);
  const labels = Array.from({ length: rows }, (_, row) =>
    unit === undefined ? formatBytes(row * rowBytes) : `${(row * rowBytes) / unit.bytes} ${unit.name}`,
  );
  if (labels.every((label) => label.length <= MOST_LABEL_COLUMNS)) return labels;
  // Many rows of an odd size: a rounded offset is better than a line that breaks.
  return labels.map((_, row) => formatBytes(row * rowBytes));
}
