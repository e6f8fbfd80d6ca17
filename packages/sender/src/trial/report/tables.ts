import { formatBytes, formatDuration, type TextTable } from '@ballast/shared/cli';
import { CAUSE_NAMES, explainedShare, type CauseName } from '@ballast/shared/measure';
import { isSameSetting, settingLabel, settingsOf } from '../setting.js';
import type { CellReport, TrialReport } from '../trial-report.js';

/** A column of a table about cells, and how soon it is given up where there is no room: the highest first. */
export interface CellColumn {
  readonly head: string;
  readonly expendable: number;
  cell(report: CellReport): string;
}

export const NOTHING = '–';

/** What each cell came to. Columns that say the same in every row are left out. */
export function resultColumns({ cells }: TrialReport): CellColumn[] {
  const measured = cells.some(({ seconds }) => seconds !== null);
  const columns: (CellColumn | false)[] = [
    { head: 'strategy', expendable: 0, cell: ({ strategy }) => strategy },
    settingsOf(cells).length > 1 && { head: 'with', expendable: 0, cell: (cell) => settingLabel(cell, cells) },
    measured && {
      head: 'time',
      expendable: 0,
      cell: ({ seconds }) => (seconds === null ? NOTHING : formatDuration(seconds.median)),
    },
    measured && {
      head: 'least–most',
      expendable: 3,
      cell: ({ seconds }) => (seconds === null ? NOTHING : `${seconds.least.toFixed(2)}–${seconds.most.toFixed(2)}`),
    },
    { head: 'predicted', expendable: 1, cell: ({ predicted }) => formatDuration(predicted.seconds) },
    measured && {
      head: 'error',
      expendable: 2,
      cell: ({ errorPercent }) => (errorPercent === null ? NOTHING : signedPercent(errorPercent)),
    },
    { head: 'wire', expendable: 4, cell: (cell) => formatBytes(wireOf(cell).total) },
    { head: 'data', expendable: 9, cell: (cell) => formatBytes(wireOf(cell).data) },
    { head: 'whiteouts', expendable: 5, cell: (cell) => formatBytes(wireOf(cell).whiteouts) },
    { head: 'map', expendable: 6, cell: (cell) => formatBytes(wireOf(cell).map) },
    { head: 'hashes', expendable: 7, cell: (cell) => formatBytes(wireOf(cell).hashes) },
    { head: 'control', expendable: 8, cell: (cell) => formatBytes(wireOf(cell).control) },
    measured && {
      head: 'memory of both',
      expendable: 10,
      cell: ({ peakBytes }) =>
        peakBytes === null ? NOTHING : `${formatBytes(peakBytes.sender)} + ${formatBytes(peakBytes.receiver)}`,
    },
  ];
  return columns.filter((column) => column !== false);
}

/** What was measured on the wire, or else what was predicted. */
function wireOf({ wire, predicted }: CellReport): CellReport['predicted']['wire'] {
  return wire ?? predicted.wire;
}

export function tableOf(cells: readonly CellReport[], columns: readonly CellColumn[]): TextTable {
  return {
    head: columns.map(({ head }) => head),
    rows: cells.map((report) => columns.map((column) => column.cell(report))),
  };
}

/** What people call each cause. */
export const CAUSE_LABELS: Readonly<Record<CauseName, string>> = {
  agree: 'agreeing',
  askMap: 'asking the map',
  read: 'reading',
  scan: 'scanning',
  announce: 'announcing',
  sendMap: 'the map',
  hash: 'hashing',
  compress: 'compressing or restoring',
  data: 'moving data',
  store: 'storing',
  wait: 'waiting',
  other: 'unexplained',
};

/** Where the time of one side went under one setting: causes down, strategies across, in seconds. */
export function causeTables({ cells }: TrialReport): TextTable[] {
  return settingsOf(cells).flatMap((setting) => {
    const group = cells.filter((cell) => isSameSetting(cell, setting) && cell.causes !== null);
    if (group.length === 0) return [];
    return (['sender', 'receiver'] as const).map((side): TextTable => {
      const spent = group.flatMap(({ causes }) => (causes === null ? [] : [causes[side]]));
      return {
        head: [
          [side, settingLabel(setting, cells)].filter((word) => word !== '').join(', '),
          ...group.map(({ strategy }) => strategy),
        ],
        rows: CAUSE_ORDER.filter((cause) => spent.some((causes) => causes[cause] >= LEAST_SHOWN)).map((cause) => [
          CAUSE_LABELS[cause],
          ...spent.map((causes) => causes[cause].toFixed(3)),
        ]),
      };
    });
  });
}

/** Seconds below which a cause is not worth a line. */
const LEAST_SHOWN = 0.0005;

/** As the work goes; what is unexplained comes last. */
export const CAUSE_ORDER: readonly CauseName[] = [...CAUSE_NAMES.filter((name) => name !== 'other'), 'other'];

/** The least share of any thread's wall time that has a name, of all runs; undefined where nobody measured. */
export function leastExplained({ cells }: TrialReport): number | undefined {
  const shares = cells.flatMap(({ runs }) =>
    runs.flatMap(({ sender, receiver }) => [sender, receiver].flatMap(({ threads }) => threads.map(explainedShare))),
  );
  return shares.length === 0 ? undefined : Math.min(...shares);
}

/** What reading the clock cost at most, as a share of a thread's wall time. */
export function costliestMeasuring({ cells }: TrialReport): number | undefined {
  const shares = cells.flatMap(({ runs }) =>
    runs.flatMap(({ sender, receiver }) =>
      [sender, receiver].flatMap(({ threads, switchSeconds }) =>
        threads.map(({ switches, seconds }) => (switches * switchSeconds) / Math.max(seconds, 1e-9)),
      ),
    ),
  );
  return shares.length === 0 ? undefined : Math.max(...shares);
}

function signedPercent(percent: number): string {
  return `${percent > 0 ? '+' : percent < 0 ? '−' : ''}${Math.abs(percent).toFixed(1)} %`;
}
