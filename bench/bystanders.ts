import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/**
 * Watches how much of the machine goes to programs that have no part in a run. Whoever measures while something else runs
 * measures that too, and should know.
 * @returns ends the watch; the share of all cores that others took, from 0 to 1
 */
export function watchBystanders(): () => number {
  const before = { at: performance.now(), all: allSeconds(), ours: ourSeconds() };
  return () => {
    const available = ((performance.now() - before.at) / 1000) * availableParallelism();
    const others = allSeconds() - before.all - (ourSeconds() - before.ours);
    return Math.min(1, Math.max(0, others / available));
  };
}

/** The kernel counts in hundredths of a second here, whatever its own tick is. */
const TICK = 100;

/** Processor time of all programs. Interrupts and what the host took are nobody's. */
function allSeconds(): number {
  const [user = 0, nice = 0, system = 0] = numbers(
    readFileSync('/proc/stat', 'utf8').split('\n')[0]?.slice('cpu'.length),
  );
  return (user + nice + system) / TICK;
}

/** Processor time of this program and of its children that have ended, and of theirs. */
function ourSeconds(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  // The name, in brackets, may hold anything; what follows it starts with the third field.
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = numbers(stat.slice(stat.lastIndexOf(')') + 4)).slice(
    10,
  );
  return (user + system + childUser + childSystem) / TICK;
}

function numbers(text = ''): number[] {
  return text.trim().split(/\s+/).map(Number);
}
