/** What a text may use where it is going to be read. */
export interface TextStyle {
  /** Characters of a line. */
  readonly columns: number;
  readonly colour: boolean;
  /** Whether more than ASCII may be drawn. */
  readonly unicode: boolean;
}

/** What is asked of a stream to know how to write to it. */
export interface TerminalLike {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Columns where nobody tells. */
export const DEFAULT_COLUMNS = 80;
/** Nothing is laid out for less; a narrower terminal wraps. */
export const LEAST_COLUMNS = 20;

/**
 * What can be written to `stream`: its width, whether colours are wanted (https://no-color.org, FORCE_COLOR) and
 * whether the locale is UTF-8.
 */
export function terminalStyle(stream: TerminalLike, environment: Environment = process.env): TextStyle {
  return {
    columns: columnsOf(stream, environment),
    colour: hasColour(stream, environment),
    unicode: isUtf8Locale(environment),
  };
}

/**
 * Whether a line on `stream` can be rewritten in place, and somebody is likely to watch it. A terminal that nobody gave a
 * size says that it has no columns: `script` without a terminal of its own, a serial console, a container's. There ora
 * would clear infinitely many lines.
 */
export function isInteractive(stream: TerminalLike, environment: Environment = process.env): boolean {
  return (
    stream.isTTY === true && stream.columns !== 0 && environment['TERM'] !== 'dumb' && environment['CI'] === undefined
  );
}

function columnsOf(stream: TerminalLike, environment: Environment): number {
  // `watch` and test harnesses name the width of a terminal that the stream does not know.
  const columns = stream.columns ?? Number(environment['COLUMNS']);
  return Number.isInteger(columns) && columns > 0 ? Math.max(columns, LEAST_COLUMNS) : DEFAULT_COLUMNS;
}

function hasColour(stream: TerminalLike, environment: Environment): boolean {
  const { NO_COLOR: refused = '', FORCE_COLOR: forced = '', TERM: terminal } = environment;
  if (refused !== '') return false;
  if (forced !== '') return forced !== '0' && forced !== 'false';
  return stream.isTTY === true && terminal !== 'dumb';
}

function isUtf8Locale(environment: Environment): boolean {
  // The order in which setlocale(3) looks at them; an empty one counts as absent.
  const locale = [environment['LC_ALL'], environment['LC_CTYPE'], environment['LANG']].find(
    (value) => value !== undefined && value !== '',
  );
  return /utf-?8/i.test(locale ?? '');
}

/** Select Graphic Rendition parameters of the colours in use. */
export type Colour = 'strong' | 'cyan' | 'blue' | 'yellow' | 'green' | 'red' | 'grey';

const SGR: Readonly<Record<Colour, string>> = {
  strong: '1',
  cyan: '36',
  blue: '34',
  yellow: '33',
  green: '32',
  red: '31',
  grey: '90',
};

/** `text` in a colour, or as it is where colours are not wanted. */
export function paint(text: string, colour: Colour | undefined, wanted: boolean): string {
  return wanted && colour !== undefined && text !== '' ? `\x1b[${SGR[colour]}m${text}\x1b[0m` : text;
}
