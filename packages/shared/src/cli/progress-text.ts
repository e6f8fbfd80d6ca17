import { paint, type TextStyle } from './terminal.js';
import { formatBytes, formatDuration, formatPercent, formatRate } from './units.js';

/** How far the work is. An event `progress` of the library is one. */
export interface ProgressView {
  /** What is being done: "send", "verify"… */
  readonly phase: string;
  /** Bytes of memory dealt with so far. */
  readonly doneBytes: number;
  /** Bytes of memory that there are to deal with, where that is known. */
  readonly totalBytes?: number;
  /** Bytes on the wire so far. */
  readonly wireBytes: number;
  /** Number of the live round, where there are rounds. */
  readonly round?: number;
  /** Bytes a second that a running guest changes, and milliseconds that it would stand still, where they are known. */
  readonly dirtyBytesPerSecond?: number;
  readonly expectedDowntimeMs?: number;
}

/** Columns of the bar, where there is one. */
const LEAST_BAR = 10;
const MOST_BAR = 40;
const GAP = '  ';

/** The pieces of a progress line, and how soon each is given up where the line is too short: the highest first. */
interface Piece {
  readonly text: string;
  readonly expendable: number;
}

function piecesOf(view: ProgressView, bytesPerSecond: number | undefined): Piece[] {
  const { phase, round, doneBytes, totalBytes, wireBytes } = view;
  const pieces: Piece[] = [{ text: round === undefined ? phase : `${phase}, round ${round}`, expendable: 0 }];
  if (totalBytes === undefined) {
    pieces.push({ text: formatBytes(doneBytes), expendable: 1 });
  } else {
    pieces.push({ text: formatPercent(doneBytes, totalBytes), expendable: 1 });
    pieces.push({ text: `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`, expendable: 4 });
  }
  if (bytesPerSecond !== undefined) {
    pieces.push({ text: formatRate(bytesPerSecond), expendable: 2 });
    if (totalBytes !== undefined && bytesPerSecond > 0 && doneBytes < totalBytes) {
      pieces.push({ text: `ETA ${formatEta((totalBytes - doneBytes) / bytesPerSecond)}`, expendable: 3 });
    }
  }
  if (view.dirtyBytesPerSecond !== undefined && view.expectedDowntimeMs !== undefined) {
    pieces.push({ text: `dirty ${formatRate(view.dirtyBytesPerSecond)}`, expendable: 3 });
    pieces.push({ text: `downtime ${formatDuration(view.expectedDowntimeMs / 1000)}`, expendable: 2 });
  }
  pieces.push({ text: `${formatBytes(wireBytes)} on the wire`, expendable: 5 });
  return pieces;
}

/** Whole seconds: a guess has no hundredths. */
function formatEta(seconds: number): string {
  return formatDuration(Math.max(1, Math.round(seconds))).replace(/\.0+ s$/, ' s');
}

/** A line of progress for a log: everything, separated by commas. */
export function progressLine(view: ProgressView, bytesPerSecond: number | undefined): string {
  const [phase, ...rest] = piecesOf(view, bytesPerSecond);
  return `${phase?.text ?? ''}: ${rest.map((piece) => piece.text).join(', ')}`;
}

/**
 * A line of progress for a terminal, in at most `style.columns` columns: what matters least is left out where it does
 * not fit, and a bar fills what is free.
 */
export function progressDisplay(view: ProgressView, bytesPerSecond: number | undefined, style: TextStyle): string {
  const pieces = piecesOf(view, bytesPerSecond);
  const hasBar = view.totalBytes !== undefined && view.totalBytes > 0;
  const width = (): number => pieces.reduce((sum, piece) => sum + piece.text.length + GAP.length, -GAP.length);
  const drop = (): void => {
    const most = pieces.reduce((worst, piece) => (piece.expendable > worst.expendable ? piece : worst));
    pieces.splice(pieces.indexOf(most), 1);
  };
  // A bar says more at a glance than the bytes on the wire.
  if (hasBar && width() + GAP.length + LEAST_BAR > style.columns) drop();
  while (width() > style.columns && pieces.length > 1) drop();
  // Nothing but the phase is left where even that is too long.
  const texts = pieces.map((piece) => piece.text.slice(0, style.columns));
  const free = style.columns - width() - GAP.length;
  if (hasBar && free >= LEAST_BAR) {
    texts.splice(1, 0, bar(view.doneBytes / view.totalBytes, Math.min(free, MOST_BAR), style));
  }
  return texts.join(GAP);
}

/** A bar of `columns` columns, filled to `share` (0 to 1). */
function bar(share: number, columns: number, { unicode, colour }: TextStyle): string {
  const done = Math.floor(Math.min(Math.max(share, 0), 1) * columns);
  const [full, empty] = unicode ? ['━', '─'] : ['=', '-'];
  return paint(full.repeat(done), 'cyan', colour) + paint(empty.repeat(columns - done), 'grey', colour);
}
