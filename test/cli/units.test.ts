import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import {
  MAX_SECONDS,
  formatBytes,
  formatCount,
  formatDuration,
  formatPercent,
  formatRate,
  parseRate,
  parseSeconds,
} from '@ballast/shared/cli';
import { BallastError, ErrorCode } from '@ballast/shared/errors';

test('bytes have three significant digits in the largest unit that leaves one of it', (t) => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [1, '1 B'],
    [999.6, '1000 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [10_236, '10.0 KiB'],
    [1023 * 1024, '1023 KiB'],
    [1024 * 1024 - 1, '1.00 MiB'],
    [1.234 * 2 ** 30, '1.23 GiB'],
    [12.34 * 2 ** 30, '12.3 GiB'],
    [123.4 * 2 ** 30, '123 GiB'],
    [2 ** 46, '64.0 TiB'],
    [2 ** 53, '8.00 PiB'],
    [-2048, '-2.00 KiB'],
    [NaN, '–'],
    [Infinity, '–'],
  ];
  for (const [bytes, text] of cases) t.is(formatBytes(bytes), text);
  t.is(formatRate(1.5 * 2 ** 30), '1.50 GiB/s');
  t.is(formatRate(Infinity), '–');
});

testProp(
  'formatted bytes are short, and within half a percent of what they stand for',
  [fc.maxSafeNat()],
  (t, bytes) => {
    const text = formatBytes(bytes);
    const [number = '', unit = ''] = text.split(' ');
    t.true(text.length <= 8, text);
    const power = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'].indexOf(unit);
    t.true(Math.abs(Number(number) * 1024 ** power - bytes) <= bytes * 0.005 + 0.5, text);
  },
);

test('durations have the units that people use', (t) => {
  const cases: [number, string][] = [
    [0, '0 s'],
    [0.00035, '0.35 ms'],
    [0.0123, '12.3 ms'],
    [0.9996, '1.00 s'],
    [3.214, '3.21 s'],
    [59.96, '1 min'],
    [75, '1 min 15 s'],
    [3599.7, '1 h'],
    [3725, '1 h 2 min'],
    [7199, '2 h'],
    [86_399, '1 d'],
    [187_200, '2 d 4 h'],
    [-5, '-5.00 s'],
    [NaN, '–'],
  ];
  for (const [seconds, text] of cases) t.is(formatDuration(seconds), text);
});

test('counts have their thousands apart', (t) => {
  t.is(formatCount(0), '0');
  t.is(formatCount(999), '999');
  t.is(formatCount(4_194_304), '4,194,304');
});

test('only nothing is 0 percent and only all is 100', (t) => {
  t.is(formatPercent(0, 10), '0 %');
  t.is(formatPercent(1, 1e9), '<0.1 %');
  t.is(formatPercent(1, 8), '12.5 %');
  t.is(formatPercent(1e9 - 1, 1e9), '>99.9 %');
  t.is(formatPercent(10, 10), '100 %');
  t.is(formatPercent(0, 0), '0 %');
});

test('seconds are read with and without a unit', (t) => {
  const cases: [string, number][] = [
    ['30', 30],
    ['0', 0],
    ['.5', 0.5],
    ['0.25s', 0.25],
    ['500ms', 0.5],
    ['5 min', 300],
    ['2M', 120],
    ['1h', 3600],
    [String(MAX_SECONDS), MAX_SECONDS],
  ];
  for (const [text, seconds] of cases) t.is(parseSeconds(text), seconds);
});

test('what is no time is refused with what was expected', (t) => {
  for (const text of ['', 'abc', '-1', '1e3', '0x10', 'Infinity', '1.', '5 parsecs', '1,5', '10s10']) {
    const error = t.throws(() => parseSeconds(text), { instanceOf: BallastError });
    t.is(error.code, ErrorCode.USAGE);
    t.regex(error.message, /is no time; expected seconds, such as 30/);
  }
});

test('a time that a timer cannot keep, or below the least, is refused', (t) => {
  for (const text of [String(MAX_SECONDS + 1), '600h']) {
    t.regex(t.throws(() => parseSeconds(text), { instanceOf: BallastError }).message, /out of range/);
  }
  t.regex(t.throws(() => parseSeconds('0.5', 1), { instanceOf: BallastError }).message, /expected 1 to/);
});

test('rates are bits where they say so and bytes otherwise, with or without "/s"', (t) => {
  const cases: [string, number][] = [
    ['10Gbit', 1.25e9],
    ['100mbit', 12.5e6],
    ['1.5 Mbit/s', 187_500],
    ['8000kbit', 1e6],
    ['500MiB', 500 * 1024 ** 2],
    ['2gib/s', 2 * 1024 ** 3],
    ['300 KiB', 300 * 1024],
    ['1.5GB', 1.5e9],
    ['250KB', 250e3],
    ['250kB', 250e3],
    ['200000B', 200e3],
    ['unlimited', Infinity],
  ];
  for (const [text, bytesPerSecond] of cases) t.is(parseRate(text, 1), bytesPerSecond, text);
});

test('a rate that is too small is refused with the least in a unit that shows it', (t) => {
  t.throws(() => parseRate('0B', 1), { message: /expected 1 B or more/ });
  t.throws(() => parseRate('0B', 125_000), { message: /expected 1,000 kbit or more/ });
});

test('a rate whose unit is missing or could be bits as well as bytes is refused with what was expected', (t) => {
  for (const text of [
    '',
    '10',
    'fast',
    '-1Gbit',
    '1e3Mbit',
    '10Mb',
    '10mb',
    '10Mbps',
    '10b',
    'Infinity',
    '10 Gbit/min',
  ]) {
    const error = t.throws(() => parseRate(text, 1), { instanceOf: BallastError });
    t.is(error.code, ErrorCode.USAGE);
    t.regex(error.message, /is no rate; expected bits a second, such as 100Mbit/, text);
  }
  t.regex(t.throws(() => parseRate('1Mbit', 250_000), { instanceOf: BallastError }).message, /expected 2,000 kbit or/);
  t.regex(
    t.throws(() => parseRate('9999999999Tbit', 250_000), { instanceOf: BallastError }).message,
    /unlimited, or less/,
  );
});
