import * as v from 'valibot';
import { CAUSE_NAMES, type Account, type CauseName, type Machine, type ThreadAccount } from '../measure/index.js';
import { MAX_CHANNELS, MAX_MACHINE_TEXT } from './constants.js';

const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(MAX_MACHINE_TEXT));

/** Where the receiver's time went, and on what machine. */
export const accountSchema = v.strictObject({
  kind: v.literal('account'),
  machine: v.strictObject({ kernel: text, processor: text, cores: whole, memoryBytes: whole, node: text }),
  /** Most bytes that the process had resident. */
  peakBytes: whole,
  /** Picoseconds that one change of cause takes. */
  switchPicoseconds: whole,
  /** The main thread and those of the channels: wall time in microseconds, changes of cause, and microseconds by cause. */
  threads: v.pipe(
    v.array(v.pipe(v.array(whole), v.length(2 + CAUSE_NAMES.length))),
    v.minLength(1),
    v.maxLength(MAX_CHANNELS + 1),
  ),
});

export type AccountMessage = v.InferOutput<typeof accountSchema>;

export function encodeAccount(account: Account, machine: Machine): AccountMessage {
  const shortened = (words: string): string => words.slice(0, MAX_MACHINE_TEXT);
  const { kernel, processor, cores, memoryBytes, node } = machine;
  return {
    kind: 'account',
    machine: { kernel: shortened(kernel), processor: shortened(processor), cores, memoryBytes, node: shortened(node) },
    peakBytes: account.peakBytes,
    switchPicoseconds: Math.round(account.switchSeconds * 1e12),
    threads: account.threads.map(({ seconds, switches, causes }) => [
      Math.round(seconds * 1e6),
      switches,
      ...CAUSE_NAMES.map((name) => Math.round(causes[name] * 1e6)),
    ]),
  };
}

export function decodeAccount(message: AccountMessage): { account: Account; machine: Machine } {
  const { machine, peakBytes, switchPicoseconds, threads } = message;
  return {
    machine,
    account: { peakBytes, switchSeconds: switchPicoseconds / 1e12, threads: threads.map(decodeThread) },
  };
}

function decodeThread([microseconds = 0, switches = 0, ...spent]: readonly number[], index: number): ThreadAccount {
  return {
    thread: index === 0 ? 'main' : `channel ${index}`,
    seconds: microseconds / 1e6,
    switches,
    causes: Object.fromEntries(CAUSE_NAMES.map((name, cause) => [name, (spent[cause] ?? 0) / 1e6])) as Record<
      CauseName,
      number
    >,
  };
}
