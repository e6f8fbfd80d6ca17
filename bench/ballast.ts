import { fileURLToPath } from 'node:url';
import { Child, describeEnd, type Ended } from './child.js';
import type { TwoHosts } from './two-hosts.js';

/** How pages that need not be sent are found and announced. */
export const STRATEGIES = ['unmodified', 'consult', 'skip', 'bitmap'] as const;
export type Strategy = (typeof STRATEGIES)[number];

/** Which Node.js runs the two programs, and what is added to their options. */
export interface Programs {
  readonly node: string;
  readonly sendArgs: readonly string[];
  readonly receiveArgs: readonly string[];
}

/** One transfer by the two real programs. */
export interface Transfer {
  readonly source: string;
  readonly destination: string;
  readonly strategy?: Strategy;
  readonly balloon?: readonly string[];
  readonly sendArgs?: readonly string[];
  readonly receiveArgs?: readonly string[];
  /** Where the programs run; both on this host, over loopback, by default. */
  readonly hosts?: TwoHosts;
}

/** What the programs report at their end. */
export interface Done {
  readonly root: string;
  readonly counters: Readonly<Record<string, number>>;
}

export interface TransferResult extends Done {
  /** From the start of the sender's process until both have ended. */
  readonly seconds: number;
  readonly senderPeakBytes: number;
  readonly receiverPeakBytes: number;
}

const SEND = fileURLToPath(new URL('../../packages/sender/bin/ballast-send.js', import.meta.url));
const RECEIVE = fileURLToPath(new URL('../../packages/receiver/bin/ballast-receive.js', import.meta.url));

/** The programs as they are, under the Node.js that runs this. */
export const DEFAULT_PROGRAMS: Programs = { node: process.execPath, sendArgs: [], receiveArgs: [] };

/**
 * Moves a file with ballast-send and ballast-receive. The receiver listens before the clock starts, as the servers of the
 * peers do; the start of the sender's Node.js is inside.
 */
export async function transfer(options: Transfer, programs: Programs = DEFAULT_PROGRAMS): Promise<TransferResult> {
  const send = (port: number): string[] => sendArguments(options, port, programs);
  return await between(receiveArguments(options, programs), send, programs, options.hosts);
}

async function between(
  receive: readonly string[],
  send: (port: number) => readonly string[],
  programs: Programs,
  hosts?: TwoHosts,
): Promise<TransferResult> {
  const receiver = startOn(hosts?.receiver, programs.node, receive, {
    name: 'ballast-receive',
    watchMemory: true,
  });
  let sender: Child | undefined;
  try {
    const port = await receiver.waitForLine(listeningPort, 'where it listens');
    const started = performance.now();
    sender = startOn(hosts?.sender, programs.node, send(port), {
      name: 'ballast-send',
      watchMemory: true,
    });
    const [sent, received] = await bothSucceeded(sender, receiver);
    const [fromSender, fromReceiver] = [done(sent, 'ballast-send'), done(received, 'ballast-receive')];
    if (fromSender.root !== fromReceiver.root) {
      throw new Error(`the two programs disagree: root ${fromSender.root} sent, ${fromReceiver.root} received`);
    }
    return {
      root: fromSender.root,
      counters: { ...fromReceiver.counters, ...fromSender.counters },
      seconds: (Math.max(sent.at, received.at) - started) / 1000,
      senderPeakBytes: sender.peakAnonymousBytes,
      receiverPeakBytes: receiver.peakAnonymousBytes,
    };
  } finally {
    await Promise.all([sender?.end(), receiver.end()]);
  }
}

/** Moves a running guest; the times are as in `transfer`. */
export async function moveLive(source: string, destination: string, programs: Programs): Promise<TransferResult> {
  const receive = [RECEIVE, '--qmp', destination, '--listen', '127.0.0.1:0', '--json', ...programs.receiveArgs];
  return await between(receive, (port) => [SEND, '--qmp', source, '--to', `127.0.0.1:${port}`, '--json'], programs);
}

/** The command of a transfer, as a user would type it. */
export function describeTransfer({
  strategy,
  balloon = [],
  sendArgs = [],
  receiveArgs = [],
}: Partial<Transfer>): string {
  const options = [...strategyArguments(strategy, balloon), ...sendArgs];
  const send = ['ballast-send SRC --to 127.0.0.1:PORT', ...options].join(' ');
  const receive = ['ballast-receive DST --listen 127.0.0.1:0', ...receiveArgs].join(' ');
  return `${receive}; ${send}`.replaceAll(/bitmap:\S+/g, 'bitmap:MAP').replaceAll(/\/\S+\//g, '');
}

/** `ip netns exec` becomes the program that it starts, so the process is the program's own. */
function startOn(
  within: readonly string[] = [],
  node: string,
  args: readonly string[],
  options: ConstructorParameters<typeof Child>[2],
): Child {
  const [command = node, ...rest] = [...within, node, ...args];
  return new Child(command, rest, options);
}

function receiveArguments({ destination, receiveArgs = [], hosts }: Transfer, programs: Programs): string[] {
  const listen = hosts === undefined ? ['--listen', '127.0.0.1:0'] : ['--listen', `${hosts.address}:0`, '--insecure'];
  return [RECEIVE, destination, ...listen, '--json', ...receiveArgs, ...programs.receiveArgs];
}

function sendArguments(
  { source, strategy, balloon = [], sendArgs = [], hosts }: Transfer,
  port: number,
  programs: Programs,
): string[] {
  const options = [...strategyArguments(strategy, balloon), ...sendArgs, ...programs.sendArgs];
  return [SEND, source, '--to', `${hosts?.address ?? '127.0.0.1'}:${port}`, '--json', ...options];
}

function strategyArguments(strategy: Strategy | undefined, balloon: readonly string[]): string[] {
  return [...(strategy === undefined ? [] : ['--strategy', strategy]), ...balloon.flatMap((map) => ['--balloon', map])];
}

/** Waits for both; where one fails, the other is ended instead of waited for, and the first failure is the one told. */
async function bothSucceeded(sender: Child, receiver: Child): Promise<[Ended, Ended]> {
  const told = async (child: Child): Promise<Ended> => {
    const ended = await child.ended;
    if (ended.code === 0) return ended;
    throw new Error(`${child.name} failed: ${failureText(ended)}`);
  };
  return await Promise.all([told(sender), told(receiver)]);
}

function listeningPort(line: string): number | undefined {
  const event = parseEvent(line);
  return event?.['event'] === 'listening' && typeof event['port'] === 'number' ? event['port'] : undefined;
}

function done({ lines }: Ended, program: string): Done {
  const event = lastEvent(lines, 'done');
  if (typeof event?.['root'] !== 'string') throw new Error(`${program} ended without the event "done"`);
  const numbers = [event, event['downtime'] ?? {}]
    .flatMap(Object.entries)
    .filter((entry): entry is [string, number] => typeof entry[1] === 'number');
  return { root: event['root'], counters: Object.fromEntries(numbers) };
}

/** What a program that failed says of it: its last event of an error, or else its last words. */
function failureText(ended: Ended): string {
  const error = lastEvent(ended.lines, 'error');
  return typeof error?.['message'] === 'string' ? error['message'] : describeEnd(ended);
}

function lastEvent(lines: readonly string[], name: string): Record<string, unknown> | undefined {
  return lines.map(parseEvent).findLast((event) => event?.['event'] === name);
}

function parseEvent(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
