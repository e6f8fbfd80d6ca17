/** What the guest said on its serial console, read from whole lines only. */
export interface SerialLog {
  /** The numbers of the `tick` lines, in the order in which they came. */
  readonly ticks: readonly number[];
  /** The turns of the `sum OK` lines. */
  readonly goodSums: readonly number[];
  /** The turns of the `sum BAD` lines; -1 for `churn BAD`. */
  readonly badSums: readonly number[];
}

/** The last line is left out while it has no end: QEMU may be in the middle of it. */
export function parseSerial(text: string): SerialLog {
  const ticks: number[] = [];
  const goodSums: number[] = [];
  const badSums: number[] = [];
  const lines = text.split('\n').slice(0, -1);
  for (const line of lines) {
    const [word, ...rest] = line.trimEnd().split(' ');
    const last = Number(rest.at(-1));
    if (word === 'tick') ticks.push(last);
    else if (word === 'churn') badSums.push(-1);
    else if (word === 'sum') (rest[0] === 'OK' ? goodSums : badSums).push(last);
  }
  return { ticks, goodSums, badSums };
}
