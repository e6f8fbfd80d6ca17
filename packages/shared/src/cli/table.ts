/** Rows of text under a head. The first column is text, the others are figures. */
export interface TextTable {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Spaces between two columns on a terminal. */
const GAP = '  ';

/** The table in columns of even width. */
export function tableText({ head, rows }: TextTable): string {
  const widths = columnWidths({ head, rows });
  const lines = [head, ...rows].map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join(GAP)
      .trimEnd(),
  );
  const rule = widths.map((width) => '─'.repeat(width)).join(GAP);
  return [lines[0], rule, ...lines.slice(1)].join('\n');
}

/** Columns of a terminal that `tableText` takes. */
export function tableWidth(table: TextTable): number {
  return columnWidths(table).reduce((sum, width) => sum + width + GAP.length, -GAP.length);
}

/** The table as GitHub's Markdown has it. */
export function tableMarkdown({ head, rows }: TextTable): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = head.map((_, column) => (column === 0 ? '---' : '---:'));
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}

function columnWidths({ head, rows }: TextTable): number[] {
  return head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
}
