import { tableText } from '@ballast/shared/cli';
import { median, pairedRatio, spread } from '@ballast/shared/measure';
import type { Measurement, Row } from './contender.js';
import { formatBytes, formatCount, formatRate, formatRatio, formatSeconds } from './format.js';
import { DEFAULT_STRATEGY } from './group-strategies.js';
import { QEMU } from './group-live.js';
import { ONE_CHANNEL } from './group-channels.js';
import { RANDOM_AS_IT_IS, TEXT_AS_IT_IS } from './group-compress.js';
import { LONG_RUN } from './group-layout.js';
import { BALLAST, LIMIT } from './group-peers.js';
import { SMALLEST } from './group-scale.js';
import { kernelAlone } from './group-steps.js';
import { BARE_TLS, FRESH } from './group-ways.js';
import type { Group } from './group.js';
import type { Results } from './results.js';
import { type Table, toMarkdown } from './table.js';

const UNKNOWN = '–';

/** One column: its head, and what it shows of a row. */
interface Column {
  readonly head: string;
  cell(row: Row, group: Group): string;
}

const TIME: Column = {
  head: 'time (least–most)',
  cell({ runs }) {
    const { median: middle, least, most } = spread(runs.map(({ seconds }) => seconds));
    return `${formatSeconds(middle)} (${least.toFixed(2)}–${most.toFixed(2)})`;
  },
};

const RATE: Column = {
  head: 'data rate',
  cell: ({ runs }, { dataBytes }) => formatRate(dataBytes / median(runs.map(({ seconds }) => seconds))),
};

const WIRE: Column = { head: 'on the wire', cell: counted(({ wireBytes }) => wireBytes, formatBytes) };
const ANONYMOUS: Column = {
  head: 'RssAnon, sender + receiver',
  cell(row, group) {
    const sender = counted(({ senderPeakBytes }) => senderPeakBytes, formatBytes)(row, group);
    const receiver = counted(({ receiverPeakBytes }) => receiverPeakBytes, formatBytes)(row, group);
    return sender === UNKNOWN ? UNKNOWN : `${sender} + ${receiver}`;
  },
};

/** What a live move's `done` tells of the downtime, in milliseconds; docs/events.md says what each is. */
const DOWNTIME_PARTS = ['stop', 'find', 'send', 'root', 'state', 'load', 'cont'] as const;

const COMPRESS: readonly Column[] = [
  TIME,
  RATE,
  timeAgainst(TEXT_AS_IT_IS, 'text'),
  timeAgainst(RANDOM_AS_IT_IS, 'random'),
  WIRE,
  ANONYMOUS,
];

const COLUMNS: Readonly<Record<Group['name'], readonly Column[]>> = {
  peers: [TIME, RATE, timeAgainst(BALLAST, 'ballast'), rateAgainst(LIMIT, 'iperf3'), WIRE, ANONYMOUS],
  layout: [TIME, RATE, timeAgainst(LONG_RUN, 'one run'), WIRE, ANONYMOUS],
  ways: [TIME, RATE, timeAgainst(FRESH, 'one connection'), rateAgainst(BARE_TLS, 'TLS alone'), WIRE, ANONYMOUS],
  channels: [TIME, RATE, timeAgainst(ONE_CHANNEL, 'one connection'), rateAgainst(LIMIT, 'iperf3'), ANONYMOUS],
  strategies: [
    TIME,
    timeAgainst(DEFAULT_STRATEGY, 'bitmap'),
    WIRE,
    { head: 'not data', cell: counted(controlBytes, formatBytes) },
    { head: 'pages scanned', cell: counted(({ counters }) => counters?.['scannedPages'], formatCount) },
    { head: 'whiteouts', cell: counted(({ counters }) => counters?.['whiteouts'], formatCount) },
    { head: 'map', cell: counted(({ counters }) => counters?.['mapBytes'], formatBytes) },
  ],
  steps: [
    {
      head: 'time (least–most)',
      cell({ runs }) {
        const { median: middle, least, most } = spread(runs.map(({ seconds }) => 1000 * seconds));
        return `${middle.toFixed(1)} ms (${least.toFixed(1)}–${most.toFixed(1)})`;
      },
    },
    {
      head: 'time ÷ the kernel alone',
      cell: (row, group) => timeAgainst(kernelAlone(row.name), '').cell(row, group),
    },
    {
      head: 'memory a second',
      cell({ runs }) {
        const rates = runs.flatMap(({ seconds, counters }) => {
          const bytes = counters?.['scannedBytes'];
          return bytes === undefined ? [] : [bytes / seconds];
        });
        return rates.length === 0 ? UNKNOWN : formatRate(median(rates));
      },
    },
    {
      head: 'the mail',
      cell: counted(
        ({ counters }) => counters?.['mailMs'],
        (ms) => `${ms} ms`,
      ),
    },
  ],
  live: [
    TIME,
    timeAgainst(QEMU, 'QEMU'),
    {
      head: 'downtime',
      cell: counted(
        ({ counters }) => counters?.['downtimeMs'],
        (ms) => `${Math.round(ms)} ms`,
      ),
    },
    {
      head: DOWNTIME_PARTS.join(' + '),
      cell(row, group) {
        const parts = DOWNTIME_PARTS.map((part) =>
          counted(({ counters }) => counters?.[`${part}Ms`], formatCount)(row, group),
        );
        return parts.includes(UNKNOWN) ? UNKNOWN : `${parts.join(' + ')} ms`;
      },
    },
    WIRE,
    { head: 'guest memory before', cell: counted(({ counters }) => counters?.['before'], formatBytes) },
    { head: 'after, source', cell: counted(({ counters }) => counters?.['sourceAfter'], formatBytes) },
    { head: 'after, destination', cell: counted(({ counters }) => counters?.['destinationAfter'], formatBytes) },
  ],
  compress: COMPRESS,
  'compress-slow': COMPRESS,
  bandwidth: [TIME, WIRE, { head: 'rate ÷ cap', cell: counted(shareOfCap, (share) => (share / 1000).toFixed(3)) }],
  scale: [TIME, timeAgainst(SMALLEST, SMALLEST), WIRE, ANONYMOUS],
};

/** The tables of a run, for a terminal. */
export function renderText(results: Results): string {
  const tables = results.groups.map((group) => {
    const table = tableOf(group);
    return [table.title, table.about, '', tableText(table), ...table.notes.map((note) => `  ${note}`), ''].join('\n');
  });
  return [machineLine(results), '', ...tables].join('\n');
}

/** The tables of a run, for a document. */
export function renderMarkdown(results: Results): string {
  const { made, runs, folder } = results;
  return [
    '# Performance',
    '',
    'Measured by `npm run bench`, which wrote these tables.',
    `${machineLine(results)} Measured on ${made.slice(0, 10)}; files on ${folder === 'tmpfs' ? 'tmpfs' : 'a disk'}.`,
    `Everything in a table ran in turn, A B C A B C …, ${runs} times after a first round that is not counted; in that`,
    'round each destination was compared with its source byte for byte. A ratio is the median of the ratios of what ran',
    'in the same round: machines differ and are noisy, ratios of one run much less. Data rate is bytes of data a second',
    'of wall time, from the start of the sending process until both have ended; RssAnon is the most that a process took.',
    '',
    ...results.groups.map((group) => toMarkdown(tableOf(group))),
  ].join('\n');
}

function machineLine({ machine }: Results): string {
  const { processor, cores, memoryBytes, kernel, node, peers } = machine;
  const programs = Object.entries({ 'Node.js': node, ...peers }).map(([name, version]) => `${name} ${version}`);
  return `${processor}, ${cores} cores, ${formatBytes(memoryBytes)} of memory, ${kernel}; ${programs.join(', ')}.`;
}

function tableOf(group: Group): Table {
  const columns = COLUMNS[group.name];
  const rows = group.rows.map((row) => [
    row.name,
    ...columns.map((column, index) => {
      if (row.status !== 'measured') return index === 0 ? row.status : UNKNOWN;
      return column.cell(row, group);
    }),
  ]);
  const notes = [...group.rows.flatMap(rowNote), ...bystanderNote(group)];
  const { title, about, command } = group;
  return {
    title,
    about,
    command,
    head: ['', ...columns.map(({ head }) => head)],
    rows,
    notes,
    details: whatWasRun(group),
  };
}

/** The commands behind the rows; rows that differ only in their file share one. */
function whatWasRun({ rows }: Group): string[] {
  const names = new Map<string, string[]>();
  for (const { name, what } of rows) names.set(what, [...(names.get(what) ?? []), name]);
  return [...names].map(([what, [first = '', ...more]]) => `${more.length === 0 ? first : `${first} …`}: \`${what}\``);
}

function rowNote({ name, status, note }: Row): string[] {
  return note === undefined ? [] : [`${name} ${status}: ${note}`];
}

/** Above this share of the machine, other programs say as much about the figures as those that were measured. */
const DISTURBED = 0.05;

function bystanderNote({ rows }: Group): string[] {
  const shares = rows
    .flatMap(({ runs }) => runs.map(({ othersShare }) => othersShare))
    .filter((share) => share !== undefined);
  if (shares.length === 0) return [];
  const { median: middle, most } = spread(shares);
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
  const shown = `Other programs took ${percent(middle)} of the machine during the runs (median; at most ${percent(most)})`;
  return [`${shown}${middle > DISTURBED ? ': measure again when it is quiet' : ''}.`];
}

/** The middle of a figure that not every program tells. */
function counted(read: (run: Measurement) => number | undefined, format: (value: number) => string): Column['cell'] {
  return ({ runs }) => {
    const values = runs.map(read).filter((value) => value !== undefined);
    return values.length === 0 ? UNKNOWN : format(Math.round(median(values)));
  };
}

function controlBytes({ wireBytes, counters }: Measurement): number | undefined {
  const dataBytes = counters?.['sentBytes'] ?? counters?.['dataBytes'];
  return wireBytes === undefined || dataBytes === undefined ? undefined : wireBytes - dataBytes;
}

/** In thousandths, since what is counted is rounded. */
function shareOfCap({ wireBytes, counters }: Measurement): number | undefined {
  const [seconds, cap] = [counters?.['seconds'], counters?.['capBytesPerSecond']];
  return wireBytes === undefined || seconds === undefined || cap === undefined
    ? undefined
    : (1000 * wireBytes) / seconds / cap;
}

function timeAgainst(name: string, short: string): Column {
  return {
    head: `time ÷ ${short}`,
    cell: (row, group) => against(row, group, name, (theirs, reference) => [theirs, reference]),
  };
}

/** A rate is one over a time: the other way round. */
function rateAgainst(name: string, short: string): Column {
  return {
    head: `rate ÷ ${short}`,
    cell: (row, group) => against(row, group, name, (theirs, reference) => [reference, theirs]),
  };
}

function against(
  row: Row,
  group: Group,
  name: string,
  order: (theirs: number[], reference: number[]) => [number[], number[]],
): string {
  const reference = group.rows.find((other) => other.name === name);
  if (reference?.status !== 'measured') return UNKNOWN;
  const seconds = ({ runs }: Row): number[] => runs.map((run) => run.seconds);
  return formatRatio(pairedRatio(...order(seconds(row), seconds(reference))).median);
}
