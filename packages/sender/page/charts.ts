import type * as PlotLibrary from '@observablehq/plot';
import type { TrialReport } from '../dist/trial/trial-report.js';

/**
 * Runs in the page of a report: draws the charts from the JSON that the page carries. Colours are the page's CSS
 * variables, so that light, dark and print need nothing drawn again.
 */

/** The library is in the page, too, as its own script. */
declare const Plot: typeof PlotLibrary;

/** What the page's maker has put beside the report: names in words, and how things are ordered. */
interface ChartWords {
  /** Causes as the work goes, with what people call them. */
  readonly causes: readonly (readonly [cause: string, label: string])[];
  /** For each cell the name of its setting. */
  readonly settings: readonly string[];
}

type CellReport = TrialReport['cells'][number];
type LabelledCell = CellReport & { readonly setting: string };

const WIDTH = 960;
const STYLE = { background: 'none', color: 'inherit', fontSize: '12px', fontFamily: 'inherit', overflow: 'visible' };
const STRATEGY_COLOURS: Readonly<Record<string, string>> = {
  unmodified: 'var(--unmodified)',
  consult: 'var(--consult)',
  skip: 'var(--skip)',
  bitmap: 'var(--bitmap)',
};
/** Cells of a row of the picture of the memory. */
const MEMORY_COLUMNS = 64;

const report = jsonOf('report') as TrialReport;
const words = jsonOf('words') as ChartWords;
const cells: readonly LabelledCell[] = report.cells.map((cell, index) => ({
  ...cell,
  setting: words.settings[index] ?? '',
}));
const settings = [...new Set(words.settings)];
const strategies = [...new Set(cells.map(({ strategy }) => strategy))];

/** Where the time went: a bar for each side of each strategy, a chart for each setting. */
function timeCharts(): Element[] {
  const charts = settings.flatMap((setting) => {
    const bars = cells
      .filter((cell) => cell.setting === setting)
      .flatMap(({ strategy, causes }) =>
        causes === null
          ? []
          : (['sender', 'receiver'] as const).flatMap((side) =>
              words.causes.map(([cause, label], order) => ({
                ...{ strategy, side, label, order },
                seconds: causes[side][cause as keyof (typeof causes)['sender']],
              })),
            ),
      );
    if (bars.length === 0) return [];
    const heading = document.createElement('h3');
    heading.textContent = setting;
    const chart = Plot.plot({
      width: WIDTH,
      height: 60 * strategies.length + 50,
      marginLeft: 70,
      marginRight: 90,
      style: STYLE,
      x: { label: 'seconds', grid: true },
      y: { label: null, domain: ['sender', 'receiver'] },
      fy: { label: null, domain: strategies },
      color: causeColours(bars.filter(({ seconds }) => seconds >= 0.0005).map(({ label }) => label)),
      marks: [
        Plot.barX(
          bars,
          Plot.stackX({
            ...{ x: 'seconds', y: 'side', fy: 'strategy', fill: 'label', order: 'order' },
            title: (bar: (typeof bars)[number]) =>
              `${bar.strategy}, ${bar.side}\n${bar.label}: ${bar.seconds.toFixed(3)} s`,
          }),
        ),
        Plot.ruleX([0]),
      ],
    });
    return setting === '' ? [chart] : [heading, chart];
  });
  return charts.length > 0 ? charts : [note('Nothing was measured yet: this is a prediction only.')];
}

/** Colours of the causes that can be seen, in their order. */
function causeColours(labels: readonly string[]): PlotLibrary.ScaleOptions & { legend: boolean } {
  const shown = words.causes.filter(([, label]) => labels.includes(label));
  return {
    legend: true,
    domain: shown.map(([, label]) => label),
    range: shown.map(([cause]) => `var(--${cause})`),
  };
}

const strategyColours = {
  legend: true,
  domain: strategies,
  range: strategies.map((strategy) => STRATEGY_COLOURS[strategy] ?? 'currentColor'),
};

/** Total against bandwidth: what was measured as dots with their spread, what was predicted as dashes. */
function byBandwidth(): Element {
  const linkRate = report.link?.bytesPerSecond ?? Infinity;
  const points = cells.map((cell) => ({
    strategy: cell.strategy,
    group: `${cell.strategy} ${cell.channels ?? ''}`,
    gigabits: (8 * Math.min(cell.bandwidth ?? Infinity, linkRate)) / 1e9,
    predicted: cell.predicted.seconds,
    ...(cell.seconds ?? { median: NaN, least: NaN, most: NaN }),
  }));
  const finite = points.filter(({ gigabits }) => Number.isFinite(gigabits));
  return Plot.plot({
    width: WIDTH,
    height: 390,
    marginLeft: 60,
    marginBottom: 45,
    style: STYLE,
    x: { type: 'log', label: 'Gbit/s (no limit: what the link carries)', grid: true, tickFormat: '~r' },
    y: { label: 'seconds', grid: true, zero: true },
    color: strategyColours,
    marks: [
      Plot.ruleY([0]),
      Plot.line(finite, {
        x: 'gigabits',
        y: 'predicted',
        z: 'group',
        stroke: 'strategy',
        strokeDasharray: '5,4',
        sort: 'gigabits',
      }),
      Plot.ruleX(finite, { x: 'gigabits', y1: 'least', y2: 'most', stroke: 'strategy', strokeWidth: 2 }),
      Plot.dot(finite, { x: 'gigabits', y: 'median', fill: 'strategy', r: 4.5, title: described }),
    ],
  });
}

/** Totals where there is one bandwidth only. */
function byStrategy(): Element {
  const points = cells.map((cell) => ({
    strategy: cell.strategy,
    setting: cell.setting,
    predicted: cell.predicted.seconds,
    ...(cell.seconds ?? { median: NaN, least: NaN, most: NaN }),
  }));
  return Plot.plot({
    width: WIDTH,
    height: 46 * points.length + 60,
    marginLeft: 90,
    marginRight: 90,
    style: STYLE,
    x: { label: 'seconds', grid: true, zero: true },
    y: { label: null, domain: strategies },
    fy: { label: null },
    color: { ...strategyColours, legend: false },
    marks: [
      Plot.ruleX([0]),
      Plot.barX(points, {
        x: 'median',
        y: 'strategy',
        fy: settings.length > 1 ? 'setting' : null,
        fill: 'strategy',
        title: described,
      }),
      Plot.ruleY(points, {
        x1: 'least',
        x2: 'most',
        y: 'strategy',
        fy: settings.length > 1 ? 'setting' : null,
        stroke: 'currentColor',
        strokeWidth: 1.5,
      }),
      Plot.tickX(points, {
        x: 'predicted',
        y: 'strategy',
        fy: settings.length > 1 ? 'setting' : null,
        stroke: 'currentColor',
        strokeWidth: 2,
        strokeDasharray: '4,3',
      }),
    ],
  });
}

function described(point: {
  strategy: string;
  median: number;
  least: number;
  most: number;
  predicted: number;
}): string {
  const { strategy, median, least, most, predicted } = point;
  return `${strategy}: ${median.toFixed(3)} s (${least.toFixed(3)} to ${most.toFixed(3)})\npredicted ${predicted.toFixed(3)} s`;
}

/** The memory row by row, each cell as what most of it is; data shows in any case. */
function memoryPicture(): Element {
  const { memory } = report;
  const kinds = memory.cells.map(({ data, zero, free }, index) => ({
    column: index % MEMORY_COLUMNS,
    row: Math.floor(index / MEMORY_COLUMNS),
    kind: data > 0 ? 'data' : zero >= free ? 'zero' : 'free',
    share: data > 0 ? 0.35 + 0.65 * (data / (data + zero + free)) : 1,
  }));
  const rows = Math.ceil(kinds.length / MEMORY_COLUMNS);
  return Plot.plot({
    width: WIDTH,
    height: 12 * rows + 10,
    margin: 2,
    style: STYLE,
    x: { axis: null, domain: Array.from({ length: MEMORY_COLUMNS }, (_, column) => column) },
    y: { axis: null },
    color: {
      legend: true,
      domain: ['data', 'zero', 'free'],
      range: ['var(--page-data)', 'var(--page-zero)', 'var(--page-free)'],
    },
    marks: [Plot.cell(kinds, { x: 'column', y: 'row', fill: 'kind', fillOpacity: 'share', inset: 0.5 })],
  });
}

function draw(id: string, charts: readonly Element[]): void {
  document.getElementById(id)?.append(...charts);
}

function note(text: string): Element {
  const paragraph = document.createElement('p');
  paragraph.textContent = text;
  return paragraph;
}

function jsonOf(id: string): unknown {
  return JSON.parse(document.getElementById(id)?.textContent ?? 'null');
}

draw('time', timeCharts());
draw('bandwidth', [cells.some(({ bandwidth }) => bandwidth !== cells[0]?.bandwidth) ? byBandwidth() : byStrategy()]);
draw('memory', [memoryPicture()]);
