import { tableMarkdown, type TextTable } from '@ballast/shared/cli';

/** Rows and columns of text, to be shown on a terminal or in a document. */
export interface Table extends TextTable {
  readonly title: string;
  /** A sentence or two on what is in it. */
  readonly about: string;
  /** How to make it again. */
  readonly command: string;
  readonly notes: readonly string[];
  /** What stands only in a document, where there is room for it: Markdown, one item each. */
  readonly details: readonly string[];
}

/** The table as GitHub's Markdown has it, under a heading and with its command beside it. */
export function toMarkdown({ title, about, command, head, rows, notes, details }: Table): string {
  const items = [...details, ...notes].map((item) => `- ${item}`);
  return [
    `## ${title}`,
    '',
    about,
    '',
    '```sh',
    command,
    '```',
    '',
    tableMarkdown({ head, rows }),
    ...(items.length === 0 ? [] : ['', ...items]),
    '',
  ].join('\n');
}
