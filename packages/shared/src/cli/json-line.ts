/** An object for `--json`; `event` names its kind. Values are what JSON can carry. */
export type OutputEvent = { readonly event: string } | { readonly event: string; readonly [key: string]: unknown };

/** What JSON.stringify leaves as it is and a terminal may obey: DEL, the C1 controls, bidirectional and format characters. */
const UNSAFE_IN_TERMINAL = /[\x7f-\x9f\u2028\u2029\p{Cf}]/gu;

/** `event` as one line, newline included. It says the same as JSON.stringify and is safe to look at in a terminal. */
export function jsonLine(event: OutputEvent): string {
  const { event: kind, ...rest } = event;
  // The kind comes first, wherever the caller put it: for eyes and for grep.
  const json = JSON.stringify({ event: kind, ...rest }, (_key, value: unknown) =>
    typeof value === 'bigint' ? value.toString() : value,
  );
  return `${json.replace(UNSAFE_IN_TERMINAL, escapedUnits)}\n`;
}

/** Each UTF-16 unit as \uXXXX, as JSON wants it beyond the basic plane. */
function escapedUnits(character: string): string {
  return Array.from(
    { length: character.length },
    (_, index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`,
  ).join('');
}
