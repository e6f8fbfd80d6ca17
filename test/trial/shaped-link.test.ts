import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { makeTwoHosts, whyNoTwoHosts } from '../network/two-hosts.js';
import { temporaryFolder } from '../support/folder.js';
import {
  Fill,
  PAGE,
  countPages,
  isData,
  isFree,
  writeBitmap,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { Program } from '../support/programs.js';
import { reportIn } from './trials.js';

const test = testUnless(await whyNoTwoHosts());

/** 96 MiB of data, 8 MiB of it stale under the balloon: some 0.8 s at 1 Gbit/s. */
const LAYOUT: Layout = [
  { fill: Fill.data, pages: 11_000 },
  { fill: Fill.zero, pages: 2000 },
  { fill: Fill.hole, pages: 20_000, ballooned: true },
  { fill: Fill.data, pages: 2048, ballooned: true },
  { fill: Fill.data, pages: 11_528 },
  { fill: Fill.hole, pages: 20_000 },
];

const MOST_TRIALS = 4;

test('on a link of 1 Gbit/s each strategy takes as long as predicted, and the unmodified one longest', async (t) => {
  t.timeout(240_000);
  const hosts = await makeTwoHosts(t);
  await hosts.sender.limit('1gbit');
  const folder = await temporaryFolder(t, 256 << 20);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, LAYOUT);
  writeBitmap(`${source}.bits`, LAYOUT);
  // What else runs on the machine only makes a run longer: the best of several is the one to compare, and a machine that
  // is busy all the time gets more of them.
  const makeTrial = await trialsBetween(t, hosts, source);
  let report = await makeTrial();
  for (let n = 1; n < MOST_TRIALS && !report.cells.every(isAsPredicted); n++) report = await makeTrial();

  // What a tbf of 1 Gbit/s leaves to TCP.
  t.true(report.link !== null && report.link.bytesPerSecond > 100e6 && report.link.bytesPerSecond < 125e6);
  const pages = countPages(LAYOUT);
  const free = countPages(LAYOUT, isFree);
  const data = countPages(LAYOUT, (run) => isData(run) && !isFree(run));
  const whiteouts = {
    unmodified: pages - countPages(LAYOUT, isData),
    consult: pages - data,
    skip: pages - data - free,
    bitmap: 0,
  };
  const bests = new Map<string, number>();
  for (const cell of report.cells) {
    const { strategy, wire, seconds, predicted, runs } = cell;
    t.is(wire?.whiteouts, 9 * whiteouts[strategy], strategy);
    const best = seconds?.least ?? NaN;
    t.true(isAsPredicted(cell), `${strategy}: ${best} s, and ${predicted.seconds} s predicted`);
    bests.set(strategy, best);
    for (const { sender, receiver } of runs) {
      for (const { threads } of [sender, receiver]) {
        for (const { causes, seconds: wall } of threads) t.true(causes.other < 0.05 * wall, strategy);
      }
    }
  }
  const slowest = [...bests].sort((a, b) => b[1] - a[1])[0]?.[0];
  t.is(slowest, 'unmodified', JSON.stringify([...bests]));
  t.is(report.cells.find(({ strategy }) => strategy === 'unmodified')?.wire?.data, PAGE * countPages(LAYOUT, isData));
});

type Report = ReturnType<typeof reportIn>;

/** Within a tenth of the prediction. */
function isAsPredicted({ seconds, predicted }: Report['cells'][number]): boolean {
  return Math.abs(predicted.seconds - (seconds?.least ?? NaN)) < 0.1 * (seconds?.least ?? NaN);
}

/** A receiver that stays, and who makes one trial after another with it. */
async function trialsBetween(
  t: ExecutionContext,
  { sender, receiver }: Awaited<ReturnType<typeof makeTwoHosts>>,
  source: string,
): Promise<() => Promise<Report>> {
  const to = `${receiver.address}:7700`;
  const listening = Program.receiver(t, ['--sink', '--keep-listening', '--insecure', '--listen', to, '--json'], {
    within: receiver.within,
  });
  await listening.event('listening');
  const balloon = ['--balloon', 'holes', '--balloon', `bitmap:${source}.bits`];
  return async () => {
    const end = await Program.sender(t, ['trial', source, ...balloon, '--to', to, '--runs', '5', '--json'], {
      within: sender.within,
    }).ended;
    t.is(end.status, 0, end.stderr);
    return reportIn(end);
  };
}
