/**
 * What a terminal, or the eye, takes for something else than the character that it is: controls (Cc: ESC, newline,
 * the C1 range), format characters (Cf: bidirectional overrides, zero-width and soft characters, tags), line and
 * paragraph separators, and halves of surrogate pairs.
 */
const UNPRINTABLE = /^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]$/u;

const SHORT_ESCAPES: ReadonlyMap<string, string> = new Map([
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
]);

/** How an unprintable character is shown: `\n`, `\x1b`, `\u202e`, `\u{e0041}`. */
function escaped(character: string): string {
  const short = SHORT_ESCAPES.get(character);
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`;
  return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
}

/**
 * Text that somebody else chose (a peer's message, a file name), made safe to write to a terminal: what could move the
 * cursor, colour, hide or reorder is shown as an escape. Text that is cut ends in "…"; an escape is never cut in half.
 * @param maxLength characters that the result has at most, 1 or more
 */
export function printable(text: string, maxLength: number): string {
  let shown = '';
  let length = 0;
  /** How much of `shown` may stay when "…" has to follow. */
  let kept = 0;
  for (const character of text) {
    const isSafe = !UNPRINTABLE.test(character);
    const piece = isSafe ? character : escaped(character);
    length += isSafe ? 1 : piece.length;
    // What is beyond the limit is not even looked at: a peer may send megabytes.
    if (length > maxLength) return `${shown.slice(0, kept)}…`;
    shown += piece;
    if (length < maxLength) kept = shown.length;
  }
  return shown;
}
