import { readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isAvailable } from '@ballast/shared/compression';
import test from 'ava';
import { PAGE, countPages, isData, isFree } from '../support/memory-file.js';
import { Program, eventsIn, failedClearly, receiverProgram, runSender } from '../support/programs.js';
import { LAYOUT, reportIn, runTrialProgram, trialScene } from './trials.js';

const PAGES = countPages(LAYOUT);
const NON_ZERO = countPages(LAYOUT, isData);
const FREE = countPages(LAYOUT, isFree);
const DATA = countPages(LAYOUT, (run) => isData(run) && !isFree(run));
const ZERO = PAGES - FREE - DATA;

test('whiteouts are 9 bytes for each page where a strategy has them, and none where it has not', async (t) => {
  const { end, report } = await runTrialProgram(t, await trialScene(t), ['--runs', '2']);
  t.is(end.status, 0, end.stderr);
  t.true(report.complete);
  const whiteouts = Object.fromEntries(report.cells.map(({ strategy, wire }) => [strategy, wire?.whiteouts]));
  t.deepEqual(whiteouts, {
    unmodified: 9 * (PAGES - NON_ZERO),
    consult: 9 * (PAGES - DATA),
    skip: 9 * ZERO,
    bitmap: 0,
  });
  for (const { strategy, wire, runs, predicted, seconds } of report.cells) {
    t.is(wire?.data, PAGE * (strategy === 'unmodified' ? NON_ZERO : DATA), strategy);
    t.is(wire?.data, predicted.wire.data, strategy);
    t.is(wire?.whiteouts, predicted.wire.whiteouts, strategy);
    t.is(wire?.hashes, predicted.wire.hashes, strategy);
    t.is(wire?.map, predicted.wire.map, strategy);
    t.is(runs.length, 2);
    t.true(seconds !== null && seconds.least <= seconds.median && seconds.median <= seconds.most);
    for (const run of runs) {
      const { total, ...parts } = run.wire;
      t.is(
        Object.values(parts).reduce((sum, bytes) => sum + bytes, 0),
        total,
      );
      t.true(run.wire.control > 0);
    }
  }
});

test('the time of each thread of both sides is all accounted for, and nearly all of it has a name', async (t) => {
  const { report } = await runTrialProgram(t, await trialScene(t), ['--runs', '2', '--bandwidths', '100Mbit']);
  for (const { strategy, runs } of report.cells) {
    for (const run of runs) {
      for (const [side, { threads, peakBytes, switchSeconds }] of Object.entries({
        sender: run.sender,
        receiver: run.receiver,
      })) {
        t.true(peakBytes > 10 << 20, `${side} has ${peakBytes} bytes`);
        t.true(switchSeconds > 0 && switchSeconds < 1e-5);
        t.is(threads[0]?.thread, 'main');
        for (const { seconds, causes, switches } of threads) {
          const sum = Object.values(causes).reduce((total, spent) => total + spent, 0);
          t.true(Math.abs(sum - seconds) < 1e-4, `${strategy}, ${side}: ${sum} s of ${seconds} s`);
          t.true(causes.other < 0.05 * seconds, `${strategy}, ${side}: ${causes.other} s of ${seconds} s`);
          t.true(switches > 0);
        }
      }
      // A thin link is what both wait for.
      const [main] = run.sender.threads;
      t.true(main !== undefined && main.causes.wait > main.causes.hash);
      t.is(main?.seconds, run.seconds);
      t.true(strategy === 'unmodified' || (main?.causes.askMap ?? 0) > 0);
    }
  }
  t.deepEqual(report.environment.receiver, report.environment.sender);
});

test('with channels each thread has an account of its own', async (t) => {
  const { report } = await runTrialProgram(t, await trialScene(t), ['--runs', '1', '--channels', '2']);
  for (const { runs, channels } of report.cells) {
    t.is(channels, 2);
    for (const { sender, receiver } of runs) {
      for (const { threads } of [sender, receiver]) {
        t.deepEqual(
          threads.map(({ thread }) => thread),
          ['main', 'channel 1', 'channel 2'],
        );
      }
    }
  }
});

test('the same seed makes the same order of runs, and each round has every combination once', async (t) => {
  const scene = await trialScene(t);
  const orders: string[][] = [];
  for (let n = 0; n < 2; n++) {
    const { end } = await runTrialProgram(t, scene, ['--runs', '3', '--seed', '7']);
    orders.push(
      eventsIn(end.stdout)
        .filter(({ event }) => event === 'trial-run')
        .map(({ strategy }) => String(strategy)),
    );
  }
  const [first = [], second] = orders;
  t.deepEqual(first, second);
  t.is(first.length, 16);
  for (let round = 0; round < 4; round++) t.is(new Set(first.slice(4 * round, 4 * round + 4)).size, 4);
});

test('a trial onto a file is made again and again, and the file is right at the end', async (t) => {
  const scene = await trialScene(t);
  const copy = join(scene.folder, 'copy.mem');
  const { to } = await receiverProgram(t, [copy, '--force', '--keep-listening']);
  const end = await runSender(t, [
    'trial',
    ...scene.memory,
    '--to',
    to,
    '--json',
    '--runs',
    '1',
    '--strategies',
    'bitmap',
  ]);
  t.is(end.status, 0, end.stderr);
  t.is((await readFile(copy)).length, PAGE * PAGES);
});

test('a trial whose receiver goes away reports what it has, says what is missing, and fails', async (t) => {
  const scene = await trialScene(t);
  const { receiver, to } = await receiverProgram(t, ['--sink', '--keep-listening']);
  const file = join(scene.folder, 'report.json');
  const sender = Program.sender(t, ['trial', ...scene.memory, '--to', to, '--json', '--runs', '50', '--report', file]);
  await sender.event('trial-run', 9);
  receiver.kill('SIGKILL');
  const end = await sender.ended;
  failedClearly(t, end, 1, /missing are unmodified: \d+ of 50 runs/);
  const report = reportIn(end);
  t.false(report.complete);
  t.true(report.cells.some(({ runs }) => runs.length > 0));
  t.is(report.missing.length, 4);
  t.regex(report.failure?.code ?? '', /^E_(CONNECT|CONNECTION_LOST)$/);
  const written: unknown = JSON.parse(await readFile(file, 'utf8'));
  t.deepEqual({ event: 'trial-done', ...(written as object) }, { ...report, event: 'trial-done' });
  t.is(eventsIn(end.stdout).at(-1)?.event, 'error');
});

test('a report that cannot be written costs neither the others nor the event', async (t) => {
  const scene = await trialScene(t);
  const [lost, written] = [join(scene.folder, 'full.json'), join(scene.folder, 'b.json')];
  await symlink('/dev/full', lost);
  const { end, report } = await runTrialProgram(t, scene, [
    ...['--runs', '1', '--strategies', 'bitmap'],
    ...['--report', lost, '--report', written],
  ]);
  failedClearly(t, end, 1, /full\.json cannot be written \(ENOSPC\)/);
  t.true(report.complete);
  t.deepEqual({ event: 'trial-done', ...(JSON.parse(await readFile(written, 'utf8')) as object) }, { ...report });
  t.is(eventsIn(end.stdout).at(-1)?.event, 'error');
});

test('an interrupted trial reports what it has and ends with 130', async (t) => {
  const scene = await trialScene(t);
  const { to } = await receiverProgram(t, ['--sink', '--keep-listening']);
  const sender = Program.sender(t, ['trial', ...scene.memory, '--to', to, '--json', '--runs', '50']);
  await sender.event('trial-run', 9);
  sender.kill('SIGINT');
  const end = await sender.ended;
  t.is(end.status, 130, end.stderr);
  const report = reportIn(end);
  t.false(report.complete);
  t.is(report.missing.length, 4);
});

test('a trial without a receiver, and one whose options contradict each other, are refused in a sentence', async (t) => {
  const { memory, source } = await trialScene(t);
  failedClearly(
    t,
    await runSender(t, ['trial', ...memory, '--to', '127.0.0.1:1']),
    1,
    /nobody listens at 127\.0\.0\.1:1/,
  );
  for (const [args, sentence] of [
    [['trial'], /no memory file was given/],
    [['trial', source], /--to HOST:PORT/],
    [
      ['trial', source, '--to', '127.0.0.1:1', '--strategies', 'bitmap,best'],
      /'best' is no strategy; expected some of unmodified/,
    ],
    [['trial', source, '--to', '127.0.0.1:1', '--bandwidths', '1Gbit,fast'], /'fast' is no rate/],
    [['trial', source, '--to', '127.0.0.1:1', '--runs', '0'], /whole number from 1/],
    [
      ['trial', source, '--to', '127.0.0.1:1', '--report', 'out.pdf'],
      /no ending that is known; expected one of .*\.json/,
    ],
    [['trial', '--predict'], /--memory SIZE and --in-use SHARE/],
    [['trial', '--predict', '--memory', '1GiB', '--in-use', '120%'], /more than all of the memory/],
    [['trial', '--predict', '--memory', '1GiB', '--in-use', '60%', '--zero', '50%'], /together are more/],
    [['trial', '--predict', source, '--memory', '1GiB'], /leave out --memory/],
    [['trial', '--predict', '--memory', '8000TiB', '--in-use', '25%'], /more than the 64 TiB/],
    [['trial', '--predict', source, '--channels', '1,4'], /leave out --channels/],
    [['trial', '--predict', source, '--compress', 'lz4'], /leave out --compress/],
    [['trial', '--predict', source, '--to', '127.0.0.1:1'], /leave out --to/],
    [['trial', source, '--to', '127.0.0.1:1', '--memory', '1GiB'], /--memory describes .* add --predict/],
    [['trial', source, '--to', '127.0.0.1:1', '--page-size', '4096'], /--page-size describes .* add --predict/],
    [['trial', '--predict', source, '--runs', '5'], /leave out --runs/],
    [['trial', '--predict', source, '--zero', '10%'], /leave out --memory, --in-use and --zero/],
    [['trial', '--predict', '--memory', '1GiB', '--in-use', '10%', '--read', 'pread'], /leave it out/],
    [['--bandwidth', '1Gbit', 'trial', '--predict', source], /--bandwidth is no option of trial/],
    [['--report', 'out.pdf', 'trial', '--predict', source], /no ending that is known/],
    [['--retry', '1', 'map', source], /--retry is no option of map/],
  ] as const) {
    failedClearly(t, await runSender(t, args), 2, sentence);
  }
});

test('what is named twice is one combination', async (t) => {
  const { memory } = await trialScene(t);
  const named = ['--bandwidths', '1Gbit,1000Mbit', '--strategies', 'skip,skip', '--channels', '1,1'];
  const end = await runSender(t, ['trial', '--predict', ...memory, '--json', ...named, '--compress', 'none,none']);
  t.is(reportIn(end).cells.length, 1, end.stderr);
});

(isAvailable('zstd') ? test.skip : test)(
  'a compression that this Node.js does not have is refused before anything is measured',
  async (t) => {
    const { memory } = await trialScene(t);
    const { to } = await receiverProgram(t, ['--sink', '--keep-listening']);
    const end = await runSender(t, ['trial', ...memory, '--to', to, '--json', '--compress', 'none,zstd']);
    failedClearly(t, end, 2, /has no zstd/);
    t.deepEqual(
      eventsIn(end.stdout).map(({ event }) => event),
      ['error'],
    );
  },
);

test('the help names the strategies as they are written', async (t) => {
  const { stdout } = await runSender(t, ['trial', '--help']);
  t.regex(stdout, /default:\s+unmodified,consult,skip,bitmap\)/);
});

test('compression and the number of channels are varied, too, and each combination is measured', async (t) => {
  const args = ['--runs', '1', '--strategies', 'bitmap', '--channels', '1,2', '--compress', 'none,lz4'];
  const { end, report } = await runTrialProgram(t, await trialScene(t), args);
  t.is(end.status, 0, end.stderr);
  t.deepEqual(
    report.cells.map(({ channels, compress, errorPercent }) => [channels, compress, errorPercent === null]),
    [
      [1, 'none', false],
      [1, 'lz4', true],
      [2, 'none', false],
      [2, 'lz4', true],
    ],
  );
  const [plain, compressed] = report.cells;
  t.true((compressed?.wire?.data ?? Infinity) < (plain?.wire?.data ?? 0));
  t.true((compressed?.causes?.sender.compress ?? 0) > 0);
  t.true((compressed?.causes?.receiver.compress ?? 0) > 0);
  t.is(plain?.causes?.receiver.compress, 0);
  for (const { wire } of report.cells) t.true(wire !== null && wire.control > 0 && wire.control < 10_000);
});

test('a rate of scanning without a limit is null for programs and unlimited for people', async (t) => {
  const args = ['trial', '--predict', '--memory', '1GiB', '--in-use', '25%', '--scan-rate', 'unlimited'];
  const [event] = eventsIn((await runSender(t, [...args, '--json'])).stdout).slice(-1);
  t.like(event, { event: 'trial-done', rates: { dataScanRate: null, zeroScanRate: null } });
  t.regex((await runSender(t, args)).stdout, /^scan: unlimited where nothing is, unlimited where data is/m);
});
