import { CAUSE_NAMES, type Account, type CauseName } from '@ballast/shared/measure';
import type { RunReport, TrialReport } from '../trial-report.js';

/** A column of the file: a name and a figure of a run. */
type Column = readonly [name: string, of: (run: RunReport) => number | string];

const WIRE = ['data', 'hashes', 'whiteouts', 'map', 'control', 'total'] as const;

const COLUMNS: readonly Column[] = [
  ['round', ({ round }) => round],
  ['seconds', ({ seconds }) => seconds],
  ...WIRE.map((kind): Column => [`wire_${kind}_bytes`, ({ wire }) => wire[kind]]),
  ['whiteout_pages', ({ whiteoutPages }) => whiteoutPages],
  ['scanned_pages', ({ scannedPages }) => scannedPages],
  ['asked_pages', ({ askedPages }) => askedPages],
  ...(['sender', 'receiver'] as const).flatMap((side): Column[] => [
    ...CAUSE_NAMES.map((cause): Column => [`${side}_${cause}_seconds`, (run) => secondsOf(run[side], cause)]),
    [`${side}_peak_bytes`, (run) => run[side].peakBytes],
  ]),
];

/** A line for each run that counts, and one for a cell that has none. Numbers as JSON has them; nothing needs quotes. */
export function trialCsv({ cells }: TrialReport): string {
  const head = [
    'strategy',
    'bandwidth_bytes_per_second',
    'channels',
    'compress',
    'predicted_seconds',
    ...COLUMNS.map(([name]) => name),
  ];
  const lines = cells.flatMap(({ strategy, bandwidth, channels, compress, predicted, runs }) => {
    const first = [strategy, bandwidth ?? 'unlimited', channels ?? 'auto', compress, predicted.seconds];
    if (runs.length === 0) return [[...first, ...COLUMNS.map(() => '')]];
    return runs.map((run) => [...first, ...COLUMNS.map(([, of]) => of(run))]);
  });
  return [head, ...lines].map((cells_) => `${cells_.join(',')}\n`).join('');
}

/** Of all threads of a side together. */
function secondsOf({ threads }: Account, cause: CauseName): number {
  return threads.reduce((sum, { causes }) => sum + causes[cause], 0);
}
