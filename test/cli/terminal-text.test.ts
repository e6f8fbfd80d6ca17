import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { printable } from '@ballast/shared/cli';

test('ordinary text stays as it is', (t) => {
  for (const text of ['', 'guest.mem', 'Größe 記憶 🎈', 'a b']) t.is(printable(text, 100), text);
});

test('what a terminal would obey is shown as an escape', (t) => {
  t.is(printable('\x1b[2J\x1b]0;title\x07', 100), '\\x1b[2J\\x1b]0;title\\x07');
  t.is(printable('a\nb\r\tc\0', 100), 'a\\nb\\r\\tc\\x00');
  t.is(printable('\x7f\x9b31m', 100), '\\x7f\\x9b31m');
});

test('what hides or reorders text is shown as an escape', (t) => {
  t.is(printable('mem\u202egpj.exe', 100), 'mem\\u202egpj.exe');
  t.is(printable('\u2066x\u2069\u200b\ufeff\u00ad\u2028', 100), '\\u2066x\\u2069\\u200b\\ufeff\\xad\\u2028');
  t.is(printable('\u{e0041}', 100), '\\u{e0041}');
  t.is(printable('\ud800', 100), '\\ud800');
});

test('long text is cut, but never within an escape', (t) => {
  t.is(printable('abcdef', 6), 'abcdef');
  t.is(printable('abcdefg', 6), 'abcde…');
  t.is(printable('ab\x1b[31m', 6), 'ab…');
  t.is(printable('ab\x1b', 6), 'ab\\x1b');
  t.is(printable('\x1b', 3), '…');
  t.is(printable('🎈🎈🎈', 2), '🎈…');
  t.is(printable('ab', 1), '…');
});

testProp(
  'nothing unprintable comes through, and the length is kept',
  [fc.string({ unit: 'binary', maxLength: 60 }), fc.integer({ min: 1, max: 80 })],
  (t, text, maxLength) => {
    const shown = printable(text, maxLength);
    t.notRegex(shown, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
    t.true(Array.from(shown).length <= maxLength);
  },
);
