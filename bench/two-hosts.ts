import { execFileSync } from 'node:child_process';

/** Two hosts on one machine: network namespaces with a cable between them. */
export interface TwoHosts {
  /** Where the receiver listens. */
  readonly address: string;
  /** Put before a command, it runs on that host. */
  readonly sender: readonly string[];
  readonly receiver: readonly string[];
  remove(): void;
}

const SENDER = '10.77.1.1';
const RECEIVER = '10.77.1.2';
const DEVICE = 'wire';

/** @param rate what the sender's end lets out, in tc's words: "1gbit"; undefined for all */
export function makeTwoHosts(rate: string | undefined): TwoHosts {
  const [from, to] = [`ballast-bench-${process.pid}-a`, `ballast-bench-${process.pid}-b`];
  const remove = (): void => {
    for (const name of [from, to]) {
      try {
        ip('netns', 'del', name);
      } catch {
        // It was not made.
      }
    }
  };
  try {
    for (const name of [from, to]) ip('netns', 'add', name);
    ip('link', 'add', DEVICE, 'netns', from, 'type', 'veth', 'peer', 'name', DEVICE, 'netns', to);
    for (const [name, address] of [
      [from, SENDER],
      [to, RECEIVER],
    ] as const) {
      ip('-n', name, 'address', 'add', `${address}/24`, 'dev', DEVICE);
      ip('-n', name, 'link', 'set', DEVICE, 'up');
    }
    if (rate !== undefined) {
      const shape = [
        'qdisc',
        'replace',
        'dev',
        DEVICE,
        'root',
        'tbf',
        'rate',
        rate,
        'burst',
        '256kb',
        'latency',
        '50ms',
      ];
      ip('netns', 'exec', from, 'tc', ...shape);
    }
  } catch (error) {
    remove();
    throw error;
  }
  const within = (name: string): readonly string[] => ['ip', 'netns', 'exec', name];
  return { address: RECEIVER, sender: within(from), receiver: within(to), remove };
}

/** Why there can be no two hosts here; undefined when there can. */
export function whyNoTwoHosts(): string | undefined {
  try {
    makeTwoHosts('1gbit').remove();
    return undefined;
  } catch (error) {
    const text = error instanceof Error ? error.message.trim() : String(error);
    return `no network namespaces with a shaped link can be made here (${text.split('\n').at(-1) ?? text})`;
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
