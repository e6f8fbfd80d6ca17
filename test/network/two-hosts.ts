import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';

const execute = promisify(execFile);

/** The system's programs only: npm puts a package's own programs ahead of them, and one of those is called nft, too. */
const SYSTEM = { ...process.env, PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };

async function run(command: string, args: readonly string[]): Promise<{ stdout: string }> {
  return await execute(command, args, { env: SYSTEM });
}

/** The one network device of each host; a namespace has names of its own. */
export const DEVICE = 'wire';

/** A network namespace that plays a host. */
export class Host {
  readonly namespace: string;
  readonly address: string;

  constructor(namespace: string, address: string) {
    this.namespace = namespace;
    this.address = address;
  }

  /** Put before a command, it runs on this host: see ProgramOptions. */
  get within(): readonly string[] {
    return ['ip', 'netns', 'exec', this.namespace];
  }

  async run(command: string, ...args: readonly string[]): Promise<string> {
    const [ip = '', ...rest] = this.within;
    return (await run(ip, [...rest, command, ...args])).stdout;
  }

  async link(state: 'up' | 'down'): Promise<void> {
    await this.run('ip', 'link', 'set', DEVICE, state);
  }

  /** Lets no more than so much leave this host: tc's words for a rate, such as 100mbit. */
  async limit(rate: string): Promise<void> {
    await this.run(
      ...(['tc', 'qdisc', 'replace', 'dev', DEVICE, 'root', 'tbf'] as const),
      ...['rate', rate, 'burst', '256kb', 'latency', '50ms'],
    );
  }

  /** Drops so many of a hundred packets that come in, at random. */
  async losePackets(percent: number): Promise<void> {
    // Packets as small as on a real link, and not the bundles of them that the kernel passes over a virtual one.
    await this.run('ip', 'link', 'set', DEVICE, 'gso_max_segs', '1');
    await this.run('nft', 'add table ip weather');
    await this.run('nft', 'add chain ip weather input { type filter hook input priority 0; }');
    await this.run('nft', `add rule ip weather input numgen random mod 1000 < ${10 * percent} counter drop`);
  }

  /** Drops every other packet that wants a connection: the first of each. */
  async loseFirstCalls(): Promise<void> {
    await this.run('nft', 'add table ip calls');
    await this.run('nft', 'add chain ip calls input { type filter hook input priority 0; }');
    await this.run('nft', 'add rule ip calls input tcp flags & (syn|ack) == syn numgen inc mod 2 == 0 drop');
  }

  /** Packets that were dropped so far. */
  async lostPackets(): Promise<number> {
    const rules = await this.run('nft', 'list', 'table', 'ip', 'weather');
    const count = /counter packets (\d+)/.exec(rules)?.[1];
    if (count === undefined) throw new Error(`nft has no counter: ${rules}`);
    return Number(count);
  }
}

/** Put before a command, it finds one file in the place of another: see ProgramOptions. */
export function inPlaceOf(place: string, file: string): readonly string[] {
  return ['unshare', '--mount', 'sh', '-c', `mount --bind '${file}' '${place}' && exec "$@"`, 'sh'];
}

/** Two hosts with a cable between them, and nothing else: no route leads out. */
export interface TwoHosts {
  readonly sender: Host;
  readonly receiver: Host;
}

let made = 0;
const existing = new Set<string>();

// For a test process that ends before its teardowns have run.
process.on('exit', () => {
  for (const namespace of existing) {
    try {
      execFileSync('ip', ['netns', 'del', namespace], { stdio: 'ignore', env: SYSTEM });
    } catch {
      // Gone already.
    }
  }
});

/** Makes two hosts, until the end of the test. */
export async function makeTwoHosts(t: ExecutionContext): Promise<TwoHosts> {
  const name = `ballast-test-${process.pid}-${++made}`;
  const hosts = { sender: new Host(`${name}-a`, '10.77.0.1'), receiver: new Host(`${name}-b`, '10.77.0.2') };
  t.teardown(async () => {
    await remove(hosts);
  });
  await build(hosts);
  return hosts;
}

async function build({ sender, receiver }: TwoHosts): Promise<void> {
  for (const { namespace } of [sender, receiver]) {
    existing.add(namespace);
    await run('ip', ['netns', 'add', namespace]);
  }
  await run('ip', [
    ...['link', 'add', DEVICE, 'netns', sender.namespace, 'type', 'veth'],
    ...['peer', 'name', DEVICE, 'netns', receiver.namespace],
  ]);
  for (const host of [sender, receiver]) {
    await host.run('ip', 'link', 'set', 'lo', 'up');
    await host.run('ip', 'address', 'add', `${host.address}/24`, 'dev', DEVICE);
    await host.link('up');
  }
}

/** The cable goes with its ends. */
async function remove({ sender, receiver }: TwoHosts): Promise<void> {
  for (const { namespace } of [sender, receiver]) {
    if (!existing.delete(namespace)) continue;
    await run('ip', ['netns', 'del', namespace]).catch(() => undefined);
  }
}

/** Why there can be no two hosts here, found out by making them; undefined when there can. */
export async function whyNoTwoHosts(): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return 'only root can make network namespaces';
  await sweep();
  const name = `ballast-test-${process.pid}-0`;
  const hosts = { sender: new Host(`${name}-a`, '10.77.0.1'), receiver: new Host(`${name}-b`, '10.77.0.2') };
  try {
    await build(hosts);
    await hosts.sender.limit('1gbit');
    await hosts.receiver.losePackets(1);
    await hosts.receiver.lostPackets();
    return undefined;
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return `no network namespaces with a shaped link can be made here: ${text.trim().split('\n').at(-1) ?? text}`;
  } finally {
    await remove(hosts);
  }
}

/** Removes what a test process left that was killed. */
async function sweep(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list']).catch(() => ({ stdout: '' }));
  for (const [namespace, pid] of stdout.matchAll(/^ballast-test-(\d+)-\S+/gm)) {
    if (isAlive(Number(pid))) continue;
    await run('ip', ['netns', 'del', namespace]).catch(() => undefined);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
