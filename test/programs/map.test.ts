import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, allocatedPages, writeBitmap, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { eventsIn, programFile, receiverProgram, runSender } from '../support/programs.js';

const MIXED: Layout = [
  { fill: Fill.hole, pages: 1 },
  { fill: Fill.data, pages: 30 },
  { fill: Fill.zero, pages: 10 },
  { fill: Fill.hole, pages: 400 },
  { fill: Fill.speck, pages: 1 },
];

test('the map of a memory has every run of pages, and their totals', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, MIXED);
  const blocks = allocatedPages(source);
  for (const read of ['pread', 'mmap']) {
    const end = await runSender(t, ['map', source, '--json', '--read', read]);
    t.is(end.status, 0, end.stderr);
    const [map, ...more] = eventsIn(end.stdout);
    t.is(more.length, 0);
    t.deepEqual(map, {
      event: 'map',
      path: source,
      memoryBytes: 442 * PAGE,
      dataBytes: 31 * PAGE,
      zeroBytes: 10 * PAGE,
      freeBytes: 401 * PAGE,
      extents: [
        { start: 0, length: PAGE, kind: 'free' },
        { start: PAGE, length: 30 * PAGE, kind: 'data' },
        { start: 31 * PAGE, length: 10 * PAGE, kind: 'zero' },
        { start: 41 * PAGE, length: 400 * PAGE, kind: 'free' },
        { start: 441 * PAGE, length: PAGE, kind: 'data' },
      ],
    });
  }
  t.is(allocatedPages(source), blocks);
});

test('no line of the picture is wider than the terminal', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, MIXED);
  for (const columns of [30, 40, 80, 120, 250]) {
    const env = { ...process.env, COLUMNS: String(columns), NO_COLOR: '1' };
    const { status, stdout, stderr } = await runSender(t, ['map', './guest.mem'], { cwd: folder, env });
    t.is(status, 0, stderr);
    t.is(stderr, '');
    for (const line of stdout.split('\n')) t.true(Array.from(line).length <= columns, `${columns}: ${line}`);
    for (const kind of ['data', 'zero', 'free']) t.regex(stdout, new RegExp(kind), `${columns} columns`);
  }
});

test('a saved bitmap, given back as the balloon map, takes out the same pages', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, saved, own] = [join(folder, 'guest.mem'), join(folder, 'saved.bits'), join(folder, 'own.bits')];
  const layout: Layout = [
    { fill: Fill.data, pages: 9 },
    { fill: Fill.data, pages: 7, ballooned: true },
    { fill: Fill.zero, pages: 3, ballooned: true },
    { fill: Fill.data, pages: 10 },
  ];
  writeMemoryFile(source, layout);
  writeBitmap(own, layout);
  const end = await runSender(t, ['map', source, '--balloon', `bitmap:${own}`, '--save-bitmap', saved]);
  t.is(end.status, 0, end.stderr);
  t.deepEqual(readFileSync(saved), readFileSync(own));
  t.is(statSync(saved).size, 4);

  const rootWith = async (map: string): Promise<string> =>
    (await runSender(t, ['digest', source, '--balloon', map])).stdout.trim();
  const root = await rootWith(`bitmap:${own}`);
  t.is(await rootWith(`bitmap:${saved}`), root);
  t.not(await rootWith('none'), root);

  const { receiver, to } = await receiverProgram(t, [join(folder, 'copy.mem')]);
  const sender = await runSender(t, [source, '--to', to, '--json', '--balloon', `bitmap:${saved}`]);
  const done = eventsIn(sender.stdout).at(-1);
  t.is(done?.['root'], root);
  t.is(done?.['freeBytes'], 10 * PAGE);
  t.is((await receiver.ended).status, 0);
});

test('a reader that leaves early is no failure and leaves no trace of one', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  // Enough runs that the answer is far larger than a pipe holds.
  writeMemoryFile(
    source,
    Array.from({ length: 6000 }, (_, index) => ({ fill: index % 2 === 0 ? Fill.speck : Fill.hole, pages: 1 })),
  );
  const sender = programFile('sender/bin/ballast-send.js');
  for (const options of ['', '--json']) {
    const shell = spawn(
      'bash',
      [
        '-c',
        `set -o pipefail; "$0" "$1" map "$2" ${options} | head -c 10; exit "\${PIPESTATUS[0]}"`,
        process.execPath,
        sender,
        source,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let stderr = '';
    shell.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    shell.stdout.resume();
    await once(shell, 'close');
    t.is(shell.exitCode, 0, stderr);
    t.is(stderr, '');
  }
});
