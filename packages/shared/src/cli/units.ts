import { BallastError, ErrorCode } from '../errors.js';
import { MAX_WAIT_MS } from '../transport/patience.js';

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
/** What is written where there is no figure: a rate before the first second, a time that nobody can tell. */
const UNKNOWN = '–';

/**
 * Three significant digits without an exponent: 1.23, 12.3, 123. The integer part is never cut, so that 1023 stays 1023.
 * Rounding happens before the digits are counted: 9.996 is 10.0, not 10.00.
 */
function threeDigits(value: number): string {
  if (value < 9.995) return value.toFixed(2);
  if (value < 99.95) return value.toFixed(1);
  return value.toFixed(0);
}

/** Bytes in the largest binary unit that leaves at least one of it: "0 B", "1023 B", "1.23 GiB". */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes)) return UNKNOWN;
  if (bytes < 0) return `-${formatBytes(-bytes)}`;
  if (Math.round(bytes) < 1024) return `${Math.round(bytes)} B`;
  let value = bytes;
  let unit = 0;
  // 1023.5 would round to 1024 of the smaller unit.
  while (value >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${threeDigits(value)} ${BYTE_UNITS[unit] ?? ''}`;
}

/** Bytes per second, in the units of formatBytes: "1.23 GiB/s". */
export function formatRate(bytesPerSecond: number): string {
  return Number.isFinite(bytesPerSecond) ? `${formatBytes(bytesPerSecond)}/s` : UNKNOWN;
}

/** Seconds, from "0.35 ms" over "3.21 s" and "1 min 15 s" to "2 d 4 h": two units at most. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return UNKNOWN;
  if (seconds < 0) return `-${formatDuration(-seconds)}`;
  if (seconds === 0) return '0 s';
  if (seconds < 0.9995) return `${threeDigits(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${threeDigits(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return twoUnits(whole, 60, 'min', 's');
  // Beyond an hour nobody counts seconds: round to whole minutes first, then to whole hours.
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return twoUnits(minutes, 60, 'h', 'min');
  return twoUnits(Math.round(seconds / 3600), 24, 'd', 'h');
}

/** `count` of the small unit, of which `perLarge` make a large one. */
function twoUnits(count: number, perLarge: number, largeName: string, smallName: string): string {
  const rest = count % perLarge;
  const head = `${Math.floor(count / perLarge)} ${largeName}`;
  return rest === 0 ? head : `${head} ${rest} ${smallName}`;
}

/** A whole number with its thousands apart: "4,194,304". The same in every locale, since scripts read it too. */
export function formatCount(count: number): string {
  if (!Number.isFinite(count)) return UNKNOWN;
  return Math.round(count)
    .toFixed(0)
    .replace(/\B(?=(?:\d{3})+$)/g, ',');
}

/**
 * The share `part` of `whole` in percent. Only nothing is "0 %" and only all of it is "100 %": a page among millions
 * shows as "<0.1 %".
 */
export function formatPercent(part: number, whole: number): string {
  if (part <= 0 || whole <= 0) return '0 %';
  if (part >= whole) return '100 %';
  const percent = (part / whole) * 100;
  if (percent < 0.1) return '<0.1 %';
  return percent > 99.9 ? '>99.9 %' : `${percent.toFixed(1)} %`;
}

/** The longest time that an option may name, in seconds (24 days): a Node.js timer fires at once beyond 2^31 - 1 ms. */
export const MAX_SECONDS = Math.floor(MAX_WAIT_MS / 1000);

const SECONDS_PER_UNIT: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['ms', 0.001],
  ['s', 1],
  ['m', 60],
  ['min', 60],
  ['h', 3600],
]);

/**
 * Reads a time as a user writes it: "30", "0.5", "500ms", "30s", "5min", "1h".
 * @param least seconds that are accepted at least: 0 where "do not wait" makes sense
 * @returns seconds
 * @throws BallastError USAGE
 */
export function parseSeconds(text: string, least = 0): number {
  const match = /^(\d+|\d*\.\d+)\s*([a-z]*)$/i.exec(text.trim());
  const unit = SECONDS_PER_UNIT.get(match?.[2]?.toLowerCase() ?? '');
  if (match === null || unit === undefined) {
    throw new BallastError(
      ErrorCode.USAGE,
      `'${text}' is no time; expected seconds, such as 30 or 0.5, or a number with ms, s, min or h, such as 5min`,
    );
  }
  const seconds = Number(match[1]) * unit;
  if (seconds < least || seconds > MAX_SECONDS) {
    throw new BallastError(ErrorCode.USAGE, `'${text}' is out of range; expected ${least} to ${MAX_SECONDS} seconds`);
  }
  return seconds;
}

const BYTES_PER_SIZE_UNIT: ReadonlyMap<string, number> = new Map(
  ['b', 'kib', 'mib', 'gib', 'tib'].map((unit, power) => [unit, 1024 ** power]),
);

/**
 * Reads a size as a user writes it: "16GiB", "512 MiB", "1.5TiB", or a number of bytes.
 * @returns bytes, a whole number
 * @throws BallastError USAGE
 */
export function parseSize(text: string): number {
  const match = /^(\d+|\d*\.\d+)\s*([a-z]*)$/i.exec(text.trim());
  const unit = BYTES_PER_SIZE_UNIT.get(match?.[2]?.toLowerCase() ?? '') ?? (match?.[2] === '' ? 1 : undefined);
  const bytes = Math.round(Number(match?.[1]) * (unit ?? NaN));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new BallastError(
    ErrorCode.USAGE,
    `'${text}' is no size; expected a number of bytes, or a number with KiB, MiB, GiB or TiB, such as 16GiB`,
  );
}

/** Bytes a second per unit; bits are decimal, as tc and iperf3 have them. */
const BYTES_PER_UNIT: ReadonlyMap<string, number> = new Map([
  ['bit', 1 / 8],
  ['kbit', 1e3 / 8],
  ['Mbit', 1e6 / 8],
  ['Gbit', 1e9 / 8],
  ['Tbit', 1e12 / 8],
  ['B', 1],
  ['kB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
  ['TB', 1e12],
  ['KiB', 1024],
  ['MiB', 1024 ** 2],
  ['GiB', 1024 ** 3],
  ['TiB', 1024 ** 4],
]);

/**
 * Reads a rate as a user writes it: "10Gbit", "100mbit", "500MiB", "1.5 GB/s"; "unlimited". There is no default unit,
 * since bits and bytes are mixed up too easily, and a lone "Mb" could be either.
 * @param least bytes a second that are accepted at least
 * @returns bytes a second; Infinity for "unlimited"
 * @throws BallastError USAGE
 */
export function parseRate(text: string, least: number): number {
  const trimmed = text.trim();
  if (trimmed === 'unlimited') return Infinity;
  const match = /^(\d+|\d*\.\d+)\s*([a-z]+?)(?:\/s)?$/i.exec(trimmed);
  const unit = match?.[2] === undefined ? undefined : rateUnit(match[2]);
  if (match === null || unit === undefined) {
    throw new BallastError(
      ErrorCode.USAGE,
      `'${text}' is no rate; expected bits a second, such as 100Mbit or 10Gbit, bytes a second, such as 500MiB or 2GB, or unlimited`,
    );
  }
  const bytesPerSecond = Number(match[1]) * unit;
  if (bytesPerSecond >= least && bytesPerSecond <= Number.MAX_SAFE_INTEGER) return bytesPerSecond;
  if (bytesPerSecond > Number.MAX_SAFE_INTEGER)
    throw new BallastError(ErrorCode.USAGE, `'${text}' is more than any link carries; expected unlimited, or less`);
  throw new BallastError(
    ErrorCode.USAGE,
    `'${text}' is out of range; expected ${least < 125 ? `${formatCount(least)} B` : `${formatCount((least * 8) / 1000)} kbit`} or more, or unlimited`,
  );
}

/** Upper and lower case matter only where they tell bits from bytes: "mbit" and "mib" are what they seem, "mb" is not. */
function rateUnit(name: string): number | undefined {
  const exact = BYTES_PER_UNIT.get(name === 'KB' ? 'kB' : name);
  if (exact !== undefined || name.length < 3) return exact;
  for (const [known, bytes] of BYTES_PER_UNIT) if (known.toLowerCase() === name.toLowerCase()) return bytes;
  return undefined;
}

/**
 * Milliseconds as users write them: "300", or with a unit as `parseSeconds` knows them: "300ms", "0.3s".
 * @throws BallastError USAGE
 */
export function parseMilliseconds(text: string): number {
  return parseSeconds(/[a-z]\s*$/i.test(text) ? text : `${text}ms`) * 1000;
}

/**
 * A whole number.
 * @throws BallastError USAGE
 */
export function parseCount(text: string, least: number, most: number): number {
  const count = /^\d+$/.test(text.trim()) ? Number(text) : NaN;
  if (count >= least && count <= most) return count;
  throw new BallastError(ErrorCode.USAGE, `'${text}' is no number from ${least} to ${most}`);
}
