import { inspect } from 'node:util';
import { printable } from './terminal-text.js';

/** Errors of a chain of causes that are shown: a chain may be a circle. */
const MOST_CAUSES = 8;
const MOST_LINES = 40;
const MOST_LINE = 2000;

/** The stack of an error and of its causes, in lines that are safe for a terminal. */
export function errorTrace(error: unknown): string[] {
  const lines: string[] = [];
  let current = error;
  for (let depth = 0; depth < MOST_CAUSES && current !== undefined; depth++) {
    const stack = current instanceof Error ? (current.stack ?? current.message) : inspect(current);
    const indent = '  '.repeat(depth + 1);
    for (const [index, line] of stack.split('\n').slice(0, MOST_LINES).entries()) {
      const head = index === 0 && depth > 0 ? 'caused by: ' : '';
      lines.push(printable(`${indent}${head}${line}`, MOST_LINE));
    }
    current = current instanceof Error ? current.cause : undefined;
  }
  return lines;
}
