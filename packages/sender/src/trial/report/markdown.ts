import { formatBytes, tableMarkdown } from '@ballast/shared/cli';
import type { Machine } from '@ballast/shared/measure';
import type { TrialReport } from '../trial-report.js';
import { causeTables, resultColumns, tableOf } from './tables.js';
import { closingLines, factLines } from './text.js';

export function trialMarkdown(report: TrialReport): string {
  const causes = causeTables(report);
  return [
    '# Bandwidth trial',
    '',
    '```sh',
    report.command,
    '```',
    '',
    ...closingLines(report).map((line) => `- ${line}`),
    '',
    tableMarkdown(tableOf(report.cells, resultColumns(report))),
    '',
    ...(causes.length === 0 ? [] : ['Seconds of wall time by cause, medians:', '']),
    ...causes.flatMap((table) => [tableMarkdown(table), '']),
    ...factLines(report).map((line) => `- ${line}`),
    ...environmentLines(report).map((line) => `- ${line}`),
    '',
  ].join('\n');
}

/** Where it was measured, a line each. */
export function environmentLines({ environment, made }: TrialReport): string[] {
  const { ballast, sender, receiver, to } = environment;
  return [
    `sender: ${machineLine(sender)}`,
    ...(receiver === null ? [] : [`receiver${to === null ? '' : ` at ${to}`}: ${machineLine(receiver)}`]),
    `ballast ${ballast}, ${made}`,
  ];
}

function machineLine({ processor, cores, memoryBytes, kernel, node }: Machine): string {
  return `${processor}, ${cores} cores, ${formatBytes(memoryBytes)} of memory, ${kernel}, Node.js ${node}`;
}
