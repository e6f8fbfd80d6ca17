import { existsSync, readFileSync } from 'node:fs';
import test from 'ava';

const page = readFileSync('docs/reliability.md', 'utf8');

/** Rows of the tables whose last column says "shown by", as their first cell and their last. */
function promises(): [what: string, shownBy: string][] {
  const rows: [string, string][] = [];
  let isShown = false;
  for (const line of page.split('\n')) {
    const cells = line.split('|').map((cell) => cell.trim());
    if (cells.length < 3) isShown = false;
    else if (cells.at(-2) === 'shown by') isShown = true;
    else if (isShown && !/^-+$/.test(cells.at(-2) ?? '')) rows.push([cells[1] ?? '', cells.at(-2) ?? '']);
  }
  return rows;
}

/** Every string of a test's source that could be a title, with what is filled in left open. */
function titlesIn(source: string): string[] {
  return [...source.matchAll(/(['`"])((?:a|an|the|\$|[A-Za-z0-9-])(?:(?!\1).)+)\1,/g)].map((match) => match[2] ?? '');
}

/** Whether a title, in which `${…}` may be anything, can begin with these words. */
function begins(title: string, words: string): boolean {
  const [fixed = ''] = title.split('${');
  return fixed.startsWith(words) || (title.includes('${') && fixed.length > 5 && words.startsWith(fixed.trimEnd()));
}

test('every test that the page on reliability names exists', (t) => {
  const rows = promises();
  t.true(rows.length > 30, 'the tables were read');
  for (const [what, shownBy] of rows) {
    t.regex(
      shownBy,
      /^[a-z-]+\/[a-z-]+(?:(?:[;,] [a-z-]+\/[a-z-]+)|(?:,? "[^"]+"))*$/,
      `${what}: a test is named vaguely`,
    );
    const files = [...shownBy.matchAll(/(?:^|[;,] )([a-z-]+\/[a-z-]+)((?: ?,? "[^"]+")*)/g)];
    t.true(files.length > 0, `${what}: no test is named`);
    for (const [, name = '', quotes = ''] of files) {
      const path = `test/${name}.test.ts`;
      if (!t.true(existsSync(path), `${what}: there is no ${path}`)) continue;
      const titles = titlesIn(readFileSync(path, 'utf8'));
      for (const [, words = ''] of quotes.matchAll(/"([^"…]+)…?"/g))
        t.true(
          titles.some((title) => begins(title, words)),
          `${what}: no test of ${path} begins "${words}"`,
        );
    }
  }
});
