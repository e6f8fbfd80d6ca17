import { formatBytes, formatDuration, formatRate, tableText, tableWidth } from '@ballast/shared/cli';
import type { TrialReport } from '../trial-report.js';
import { causeTables, costliestMeasuring, leastExplained, resultColumns, tableOf } from './tables.js';

/** The outcome for a terminal of so many columns: what matters least is left out where it does not fit. */
export function trialText(report: TrialReport, columns: number): string {
  const kept = resultColumns(report);
  while (tableWidth(tableOf(report.cells, kept)) > columns) {
    const most = kept.reduce((worst, column) => (column.expendable > worst.expendable ? column : worst));
    if (most.expendable === 0) break;
    kept.splice(kept.indexOf(most), 1);
  }
  return [
    ...factLines(report),
    '',
    tableText(tableOf(report.cells, kept)),
    ...causeTables(report).flatMap((table) => ['', tableText(table)]),
    '',
    ...closingLines(report),
  ].join('\n');
}

/** What was measured on what, a line each. */
export function factLines({ memory, link, rates, seed, runs }: TrialReport): string[] {
  const { data, zero, free, stale } = memory.bytes;
  const lines = [
    `memory: ${formatBytes(memory.memoryBytes)}, of which ${formatBytes(data)} data, ${formatBytes(zero)} zero, ${formatBytes(free + stale)} free` +
      (stale > 0 ? ` (${formatBytes(stale)} of it with stale bytes)` : ''),
    `scan: ${scanRate(rates.zeroScanRate)} where nothing is, ${scanRate(rates.dataScanRate)} where data is; BLAKE3 ${formatRate(rates.hashRate)}`,
  ];
  if (link !== null) {
    lines.push(
      `link: ${formatRate(link.bytesPerSecond)}, with a round trip of ${formatDuration(link.roundTripSeconds)}, between the two processes and with nothing else to do`,
      `runs: ${runs} of each, interleaved, after one that is not counted; the order is that of --seed ${seed}`,
    );
  }
  return lines;
}

/** What follows from it, and what is missing, a line each. */
export function closingLines(report: TrialReport): string[] {
  const explained = leastExplained(report);
  const cost = costliestMeasuring(report);
  return [
    ...report.answers,
    ...(explained === undefined || cost === undefined
      ? []
      : [
          `The causes explain ${(100 * explained).toFixed(1)} % of the time of each side or more; reading the clock took ${(100 * cost).toFixed(2)} % at most.`,
        ]),
    ...(report.missing.length === 0 ? [] : [`Missing: ${report.missing.join('; ')}.`]),
    ...(report.failure === null ? [] : [`It ended early: ${report.failure.message}.`]),
  ];
}

function scanRate(bytesPerSecond: number): string {
  return bytesPerSecond === Infinity ? 'unlimited' : formatRate(bytesPerSecond);
}
