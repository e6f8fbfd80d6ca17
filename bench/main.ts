import { readFile, writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { Programs } from './ballast.js';
import { interleave, type OnStep } from './contender.js';
import { describeFolder, findFolder, makePrivateFolder, namedFolder } from './folder.js';
import { formatBytes, formatSeconds } from './format.js';
import { type Bench, GIB, type Group, GROUP_NAMES, type GroupName, type GroupPlan } from './group.js';
import { bandwidthPlan } from './group-bandwidth.js';
import { channelsPlan } from './group-channels.js';
import { compressPlan, compressSlowPlan } from './group-compress.js';
import { layoutPlan } from './group-layout.js';
import { livePlan } from './group-live.js';
import { peersPlan } from './group-peers.js';
import { scalePlan } from './group-scale.js';
import { stepsPlan } from './group-steps.js';
import { strategiesPlan } from './group-strategies.js';
import { waysPlan } from './group-ways.js';
import { describeMachine } from './machine.js';
import { renderMarkdown, renderText } from './render.js';
import { parseResults, type Results } from './results.js';
import { warmMemory } from './warm.js';

interface Options {
  readonly quick: boolean;
  readonly runs?: number;
  readonly only?: readonly GroupName[];
  readonly out?: string;
  readonly markdown?: string;
  readonly from?: string;
  readonly folder?: string;
  readonly node: string;
  readonly sendArg: readonly string[];
  readonly receiveArg: readonly string[];
}

const PLANS: readonly GroupPlan[] = [
  peersPlan,
  layoutPlan,
  waysPlan,
  channelsPlan,
  strategiesPlan,
  stepsPlan,
  scalePlan,
  livePlan,
  compressPlan,
  compressSlowPlan,
  bandwidthPlan,
];
const RUNS = 5;
const QUICK = { runs: 3, shrink: 4 };
const SMALLEST_SHRINK = 64;

const program = new Command('bench')
  .description('Measures Ballast beside other tools, all in one interleaved run, and prints ratios')
  .option('--quick', `a quarter of the sizes, and ${QUICK.runs} runs`, false)
  .option('--runs <n>', `how often each is measured (default: ${RUNS})`, positiveInteger)
  .addOption(new Option('--only <name...>', 'measure only these').choices(GROUP_NAMES))
  .option('--out <file>', 'write the results as JSON')
  .option('--markdown <file>', 'write the tables as Markdown')
  .option('--from <file>', 'measure nothing; show the results in this file')
  .option('--folder <path>', 'make the files here (default: a tmpfs with room)')
  .option('--node <program>', 'the Node.js that runs the two programs', process.execPath)
  .option('--send-arg <argument>', 'one more argument for ballast-send; may be repeated', collect, [])
  .option('--receive-arg <argument>', 'one more argument for ballast-receive; may be repeated', collect, [])
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

process.exitCode = await main(program.parse().opts<Options>());

async function main(options: Options): Promise<number> {
  try {
    const results =
      options.from === undefined ? await measure(options) : parseResults(await readFile(options.from, 'utf8'));
    console.log(renderText(results));
    if (options.out !== undefined) await writeFile(options.out, `${JSON.stringify(results, null, 1)}\n`);
    if (options.markdown !== undefined) await writeFile(options.markdown, renderMarkdown(results));
    return results.groups.some(({ rows }) => rows.some(({ status }) => status === 'failed')) ? 1 : 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  }
}

async function measure(options: Options): Promise<Results> {
  const { quick, only = GROUP_NAMES, sendArg, receiveArg } = options;
  const plans = PLANS.filter(({ name }) => only.includes(name));
  const runs = options.runs ?? (quick ? QUICK.runs : RUNS);
  const wanted = Math.max(...plans.map(({ roomBytes }) => roomBytes));
  const asked = quick ? QUICK.shrink : 1;
  const found = options.folder === undefined ? findFolder(wanted / asked) : namedFolder(options.folder);
  const shrink = fittingShrink(wanted, found.roomBytes, asked);
  const folder = makePrivateFolder(found);
  say(describeFolder(found));
  if (shrink !== asked) say(`There is little room: all sizes are divided by ${shrink}.`);
  try {
    const command = commandOf(options);
    const machine = await describeMachine(options.node);
    const programs: Programs = { node: options.node, sendArgs: sendArg, receiveArgs: receiveArg };
    const warm = Math.min(wanted / shrink + GIB, folder.roomBytes);
    say(`Warming ${formatBytes(warm)} of memory …`);
    await warmMemory(folder, warm);
    const made = new Date().toISOString();
    const groups: Group[] = [];
    for (const plan of plans) {
      const rounds = onStep(plan.name);
      const bench: Bench = {
        folder,
        programs,
        shrink,
        interleave: async (contenders) => interleave(contenders, runs, rounds),
      };
      groups.push({ name: plan.name, command: `${command} --only ${plan.name}`, ...(await plan.measure(bench)) });
    }
    return { format: 1, made, command, runs, folder: folder.kind, machine, groups };
  } finally {
    folder.remove();
  }
}

/** The command that makes the same measurements again, but for what was chosen with --only. */
function commandOf({ quick, runs, sendArg, receiveArg }: Options): string {
  return [
    'npm run bench --',
    ...(quick ? ['--quick'] : []),
    ...(runs === undefined ? [] : [`--runs ${runs}`]),
    ...sendArg.map((argument) => `--send-arg=${argument}`),
    ...receiveArg.map((argument) => `--receive-arg=${argument}`),
  ].join(' ');
}

/** The least power of two, from what was asked on, by which the sizes must be divided to fit. */
function fittingShrink(wanted: number, room: number, asked: number): number {
  for (let shrink = asked; shrink <= SMALLEST_SHRINK; shrink *= 2) if (wanted / shrink <= room) return shrink;
  throw new Error(
    `${formatBytes(room)} of room is too little; expected at least ${formatBytes(wanted / SMALLEST_SHRINK)}: ` +
      'free some memory, or name a folder with --folder',
  );
}

function onStep(group: GroupName): OnStep {
  return ({ round, rounds, name, seconds, note }) => {
    const when = round === 0 ? 'warm-up' : `run ${round}/${rounds}`;
    if (seconds !== undefined) say(`${group}  ${when}  ${name}  ${formatSeconds(seconds)}`);
    else if (note !== undefined) say(`${group}  ${when}  ${name}  FAILED: ${note}`);
  };
}

/** Progress goes to stderr, so that the tables can be piped away. */
function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('Expected a whole number, at least 1.');
  return value;
}

function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}
