import { join } from 'node:path';
import type { TrialReport } from '@ballast/sender';
import type { ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, writeBitmap, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { Program, eventsIn, receiverProgram, type ProgramEnd } from '../support/programs.js';

/** Something of everything; stale bytes under the balloon, too. 16 MiB. */
export const LAYOUT: Layout = [
  { fill: Fill.data, pages: 700 },
  { fill: Fill.zero, pages: 300 },
  { fill: Fill.hole, pages: 1000 },
  { fill: Fill.data, pages: 96, ballooned: true },
  { fill: Fill.hole, pages: 904, ballooned: true },
  { fill: Fill.speck, pages: 100 },
  { fill: Fill.hole, pages: 996 },
];

export interface TrialScene {
  readonly folder: string;
  readonly source: string;
  /** The options that name the memory and its balloon map. */
  readonly memory: readonly string[];
}

export async function trialScene(t: ExecutionContext, layout: Layout = LAYOUT): Promise<TrialScene> {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, layout);
  writeBitmap(`${source}.bits`, layout);
  return { folder, source, memory: [source, '--balloon', 'holes', '--balloon', `bitmap:${source}.bits`] };
}

/** A trial against a sink, to its end. */
export async function runTrialProgram(
  t: ExecutionContext,
  { memory }: TrialScene,
  args: readonly string[],
): Promise<{ end: ProgramEnd; report: TrialReport }> {
  const { to } = await receiverProgram(t, ['--sink', '--keep-listening']);
  const end = await Program.sender(t, ['trial', ...memory, '--to', to, '--json', ...args]).ended;
  return { end, report: reportIn(end) };
}

/** The report in the event `trial-done`. */
export function reportIn({ stdout, stderr }: ProgramEnd): TrialReport {
  const event = eventsIn(stdout).find(({ event: name }) => name === 'trial-done');
  if (event === undefined) throw new Error(`the trial ended without a report: ${stderr}`);
  return event as unknown as TrialReport;
}
