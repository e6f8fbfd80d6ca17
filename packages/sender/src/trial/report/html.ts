import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { formatBytes, type TextTable } from '@ballast/shared/cli';
import { settingLabel } from '../setting.js';
import type { TrialReport } from '../trial-report.js';
import { environmentLines } from './markdown.js';
import { CAUSE_LABELS, CAUSE_ORDER, causeTables, resultColumns, tableOf } from './tables.js';
import { closingLines, factLines } from './text.js';

/**
 * The report as one page that needs nothing else: style, charts and the library that draws them are in it, and so is the
 * report itself as JSON (`#report`), from which the charts are drawn. The tables are there without any script.
 */
export function trialHtml(report: TrialReport): string {
  const { cells } = report;
  const words = {
    causes: CAUSE_ORDER.map((cause) => [cause, CAUSE_LABELS[cause]]),
    settings: cells.map((cell) => settingLabel(cell, cells)),
  };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Ballast: bandwidth trial</title>
<style>
${packageFile('#page/page.css')}</style>
</head>
<body>
<h1>Bandwidth trial</h1>
<p class="quiet">${escaped(subtitle(report))}</p>
${answers(report)}
<h2>What it took</h2>
<div class="wide">${table(tableOf(cells, resultColumns(report)))}</div>
<h2>Total, measured and predicted</h2>
<p class="quiet">Measured: medians, with the least and the most. Dashed: what the model predicts.</p>
<figure id="bandwidth"></figure>
<h2>Where the time went</h2>
<p class="quiet">Wall time of each side by cause, waiting included; where there are channels, that of the busiest.</p>
<figure id="time"></figure>
<div class="pairs">${causeTables(report).map(table).join('\n')}</div>
<h2>The memory</h2>
<p class="quiet">${escaped(memoryLine(report))}</p>
<figure id="memory"></figure>
<h2>How it was measured</h2>
<code>${escaped(report.command)}</code>
<ul>
${[...factLines(report), ...environmentLines(report)].map((line) => `<li>${escaped(line)}</li>`).join('\n')}
</ul>
<script type="application/json" id="report">${scriptSafe(JSON.stringify(report))}</script>
<script type="application/json" id="words">${scriptSafe(JSON.stringify(words))}</script>
<script>${library('d3', 'd3.min.js')}</script>
<script>${library('@observablehq/plot', '../dist/plot.umd.min.js')}</script>
<script type="module">
${packageFile('#page/charts.js').replace(/^\/\/# sourceMappingURL.*$/m, '')}</script>
</body>
</html>
`;
}

function subtitle({ memory, environment, made }: TrialReport): string {
  const what = memory.files.length === 0 ? `a memory of ${formatBytes(memory.memoryBytes)}` : memory.files.join(', ');
  return environment.to === null
    ? `Prediction for ${what}, ${made.slice(0, 10)}`
    : `${what} to ${environment.to}, ${made.slice(0, 10)}`;
}

function answers(report: TrialReport): string {
  const lines = closingLines(report).map((line) => `<p>${escaped(line)}</p>`);
  if (lines.length === 0) return '';
  return `<div class="answer${report.complete ? '' : ' missing'}">${lines.join('\n')}</div>`;
}

function memoryLine({ memory }: TrialReport): string {
  return `${formatBytes(memory.memoryBytes)} by ascending address, row by row; each cell is ${formatBytes(memory.cellBytes)}, and paler where only part of it is data.`;
}

function table({ head, rows }: TextTable): string {
  const row = (cells: readonly string[], tag: 'th' | 'td'): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join('')}</tr>`;
  return `<table><thead>${row(head, 'th')}</thead><tbody>${rows.map((cells) => row(cells, 'td')).join('\n')}</tbody></table>`;
}

const { resolve } = createRequire(import.meta.url);

/** A file of this package, by a name from `imports` in its package.json. */
function packageFile(name: string): string {
  return readFileSync(resolve(name), 'utf8');
}

/** A script of a library, beside the module that its name stands for. */
function library(name: string, path: string): string {
  return readFileSync(join(dirname(resolve(name)), path), 'utf8');
}

/** Nothing in it ends the element, or begins a comment of HTML. */
function scriptSafe(json: string): string {
  return json.replaceAll('<', String.raw`\u003c`);
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character] ?? character);
}
