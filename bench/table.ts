/** Rows and columns of text, to be shown on a terminal or in a document. */
export interface Table {
  readonly title: string;
  /** A sentence or two on what is in it. */
  readonly about: string;
  /** How to make it again. */
  readonly command: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly notes: readonly string[];
  /** What stands only in a document, where there is room for it: Markdown, one item each. */
  readonly details: readonly string[];
}

/** The table in columns of even width; the first column is text, the others are figures. */
export function toText({ head, rows }: Pick<Table, 'head' | 'rows'>): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  const lines = all.map((row) =>
    row
      .map((cell, column) => pad(cell, widths[column] ?? 0, column === 0))
      .join('  ')
      .trimEnd(),
  );
  const rule = widths.map((width) => '─'.repeat(width)).join('  ');
  return [lines[0], rule, ...lines.slice(1)].join('\n');
}

/** The table as GitHub's Markdown has it, under a heading and with its command beside it. */
export function toMarkdown({ title, about, command, head, rows, notes, details }: Table): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const items = [...details, ...notes].map((item) => `- ${item}`);
  const rule = head.map((_, column) => (column === 0 ? '---' : '---:'));
  return [
    `## ${title}`,
    '',
    about,
    '',
    '```sh',
    command,
    '```',
    '',
    line(head),
    line(rule),
    ...rows.map(line),
    ...(items.length === 0 ? [] : ['', ...items]),
    '',
  ].join('\n');
}

function pad(cell: string, width: number, left: boolean): string {
  const fill = ' '.repeat(Math.max(0, width - cell.length));
  return left ? cell + fill : fill + cell;
}
