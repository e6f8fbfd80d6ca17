import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TrialReport } from '@ballast/sender';
import { runSender } from '../support/programs.js';
import { testUnless } from '../support/mounts.js';
import { openPage, whyNoBrowser } from './browser.js';
import { runTrialProgram, trialScene } from './trials.js';

const test = testUnless(whyNoBrowser());

test("a report opens without a complaint, asks nobody for anything, and its numbers are the JSON's", async (t) => {
  const scene = await trialScene(t);
  const [html, json] = [join(scene.folder, 'trial.html'), join(scene.folder, 'trial.json')];
  const { end, report } = await runTrialProgram(t, scene, [
    ...['--runs', '2', '--bandwidths', '200Mbit,unlimited', '--report', html, '--report', json],
  ]);
  t.is(end.status, 0, end.stderr);
  const { page, complaints } = await openPage(t, html);
  t.deepEqual(complaints, []);

  const written = JSON.parse(await readFile(json, 'utf8')) as TrialReport;
  t.deepEqual(JSON.parse((await page.locator('#report').textContent()) ?? '') as TrialReport, written);
  t.deepEqual({ ...report, event: undefined }, { ...written, event: undefined } as unknown);

  // The table, row by row.
  const rows = await page.locator('table').first().locator('tbody tr').allInnerTexts();
  t.is(rows.length, 8);
  for (const [index, { strategy, seconds, errorPercent, wire }] of written.cells.entries()) {
    const row = rows[index] ?? '';
    t.true(row.startsWith(strategy), row);
    if (seconds === null || errorPercent === null || wire === null) {
      t.fail('everything was measured');
      continue;
    }
    t.true(row.includes(`${seconds.least.toFixed(2)}–${seconds.most.toFixed(2)}`), row);
    t.true(row.includes(`${Math.abs(errorPercent).toFixed(1)} %`), row);
    t.true(row.includes(wire.whiteouts === 0 ? '0 B' : 'KiB'), row);
  }

  // The charts say of each bar what it stands for.
  const bars = await page.locator('#time rect title').allTextContents();
  for (const { strategy, causes } of written.cells) {
    for (const side of ['sender', 'receiver'] as const) {
      const told = `${strategy}, ${side}\nhashing: ${causes?.[side].hash.toFixed(3) ?? ''} s`;
      t.true(bars.includes(told), told);
    }
  }
  const dots = await page.locator('#bandwidth circle title').allTextContents();
  t.is(dots.length, 8);
  for (const { strategy, seconds } of written.cells)
    t.true(dots.some((dot) => dot.startsWith(`${strategy}: ${seconds?.median.toFixed(3) ?? ''} s`)));
  t.is(await page.locator('#memory [aria-label="cell"] rect').count(), written.memory.cells.length);

  // Dark, and on paper, where it is light whatever the screen is.
  const background = async (): Promise<string> =>
    await page.evaluate('getComputedStyle(document.body).backgroundColor');
  const light = await background();
  await page.emulateMedia({ colorScheme: 'dark' });
  t.not(await background(), light);
  await page.emulateMedia({ colorScheme: 'dark', media: 'print' });
  t.is(await background(), light);
  t.true((await page.pdf()).length > 10_000);
  t.deepEqual(complaints, []);
});

test('a prediction, a trial that ended early, and names that look like HTML make good pages', async (t) => {
  const scene = await trialScene(t);
  const prediction = join(scene.folder, 'prediction.html');
  const end = await runSender(t, [
    ...['trial', '--predict', '--memory', '16GiB', '--in-use', '25%', '--report', prediction],
  ]);
  t.is(end.status, 0, end.stderr);
  const evil = join(scene.folder, "a'b & <script>alert(1)<!--.html");
  t.is((await runSender(t, ['trial', '--predict', scene.source, '--report', evil])).status, 0);
  for (const path of [prediction, evil]) {
    const { page, complaints } = await openPage(t, path);
    t.deepEqual(complaints, []);
    t.is(await page.locator('table').first().locator('tbody tr').count(), 8);
    t.true((await page.locator('svg').count()) >= 2);
  }
});

test('Markdown and CSV have the same numbers', async (t) => {
  const scene = await trialScene(t);
  const files = ['md', 'csv', 'json'].map((ending) => join(scene.folder, `trial.${ending}`));
  const { end } = await runTrialProgram(t, scene, ['--runs', '2', ...files.flatMap((file) => ['--report', file])]);
  t.is(end.status, 0, end.stderr);
  const [markdown = '', csv = '', json = ''] = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  const { cells } = JSON.parse(json) as TrialReport;
  const [head = '', ...lines] = csv.trimEnd().split('\n');
  const names = head.split(',');
  const rows = lines.map((line) => new Map(line.split(',').map((value, index) => [names[index], value])));
  t.deepEqual(
    rows.map((row) => [row.get('strategy'), Number(row.get('seconds')), Number(row.get('wire_total_bytes'))]),
    cells.flatMap(({ strategy, runs }) => runs.map((run) => [strategy, run.seconds, run.wire.total])),
  );
  for (const { strategy, seconds } of cells) {
    const row = markdown.split('\n').find((line) => line.startsWith(`| ${strategy} |`)) ?? '';
    t.true(row.includes(`${seconds?.least.toFixed(2) ?? ''}–${seconds?.most.toFixed(2) ?? ''}`), row);
  }
});
