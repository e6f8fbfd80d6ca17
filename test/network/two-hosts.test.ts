import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import {
  Fill,
  PAGE,
  countPages,
  firstWrongPage,
  isData,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { Program, eventsIn, type JsonObject, type ProgramEnd } from '../support/programs.js';
import { Authority, tlsDirectory, whyNoOpenssl } from '../tls/certificates.js';
import { DEVICE, inPlaceOf, makeTwoHosts, whyNoTwoHosts, type TwoHosts } from './two-hosts.js';

const test = testUnless((await whyNoTwoHosts()) ?? (await whyNoOpenssl()));

/** 48 MiB of data: some 4 s at 100 Mbit/s. */
const LAYOUT: Layout = [
  { fill: Fill.data, pages: 8000 },
  { fill: Fill.hole, pages: 20_000 },
  { fill: Fill.zero, pages: 100 },
  { fill: Fill.data, pages: 4288 },
];
const DATA_BYTES = PAGE * countPages(LAYOUT, isData);

interface Scenario {
  readonly hosts: TwoHosts;
  readonly folder: string;
  readonly source: string;
  readonly copy: string;
}

async function prepare(t: ExecutionContext): Promise<Scenario> {
  const folder = await temporaryFolder(t, 192 << 20);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  return { hosts: await makeTwoHosts(t), folder, source, copy };
}

interface Running {
  readonly sender: Program;
  readonly receiver: Program;
}

/** Starts both programs, each on its host. */
async function start(
  t: ExecutionContext,
  { hosts, source, copy }: Scenario,
  options: {
    receive?: readonly string[];
    send?: readonly string[];
    to?: string;
    sendWithin?: readonly string[];
  } = {},
): Promise<Running> {
  const { receive = ['--insecure'], send = [], to = hosts.receiver.address } = options;
  const { sendWithin = hosts.sender.within } = options;
  const receiver = Program.receiver(t, [copy, '--listen', `${hosts.receiver.address}:7700`, '--json', ...receive], {
    within: hosts.receiver.within,
  });
  await receiver.event('listening');
  const sender = Program.sender(t, [source, '--to', `${to}:7700`, '--json', ...send], { within: sendWithin });
  return { sender, receiver };
}

/** Waits until so many bytes were on the wire. */
async function onTheWay(sender: Program, bytes: number): Promise<void> {
  for (let n = 0; Number((await sender.event('progress', n))['wireBytes']) < bytes;) n++;
}

/** Both have ended well, and the copy is right. */
async function right(
  t: ExecutionContext,
  { sender, receiver }: Running,
  { copy }: Scenario,
): Promise<{ sent: ProgramEnd; received: ProgramEnd; done: JsonObject }> {
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  const received = await receiver.ended;
  t.is(received.status, 0, received.stderr);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  t.is(eventsIn(received.stdout).at(-1)?.['root'], eventsIn(sent.stdout).at(-1)?.['root']);
  return { sent, received, done: await sender.event('done') };
}

function retries({ stdout }: ProgramEnd): JsonObject[] {
  return eventsIn(stdout).filter(({ event }) => event === 'retry');
}

test('a memory goes from one host to another', async (t) => {
  const scenario = await prepare(t);
  const { done } = await right(t, await start(t, scenario), scenario);
  t.is(done['sentBytes'], DATA_BYTES);
});

test('a host whose name has two addresses is found at either, also when the first packet gets lost', async (t) => {
  const scenario = await prepare(t);
  const { hosts, folder } = scenario;
  await hosts.receiver.loseFirstCalls();
  for (const addresses of [
    [hosts.receiver.address, '10.77.0.3'],
    ['10.77.0.3', hosts.receiver.address],
  ]) {
    const names = join(folder, 'hosts');
    await writeFile(names, addresses.map((address) => `${address} host-b.test\n`).join(''));
    const sendWithin = [...hosts.sender.within, ...inPlaceOf('/etc/hosts', names)];
    const receive = ['--insecure', '--force'];
    await right(t, await start(t, scenario, { to: 'host-b.test', sendWithin, receive }), scenario);
  }
});

test('a memory goes from one host to another over TLS, by address and by name', async (t) => {
  const scenario = await prepare(t);
  const { hosts, folder } = scenario;
  const authority = await Authority.make(join(folder, 'authority'), 'Ballast test authority');
  const server = await authority.issue({
    commonName: 'host-b',
    usage: 'serverAuth',
    alternatives: ['DNS:host-b.test', `IP:${hosts.receiver.address}`],
  });
  const client = await authority.issue({ commonName: 'host-a', usage: 'clientAuth' });
  const directories = {
    server: await tlsDirectory(join(folder, 'host-b'), { ca: authority.cert, server }),
    client: await tlsDirectory(join(folder, 'host-a'), { ca: authority.cert, client }),
  };
  for (const name of [[], ['--tls-hostname', 'host-b.test']]) {
    const running = await start(t, scenario, {
      receive: ['--tls-dir', directories.server, '--tls-allow', 'host-a', '--force'],
      send: ['--tls-dir', directories.client, ...name],
    });
    await right(t, running, scenario);
  }
  const running = await start(t, scenario, {
    receive: ['--tls-dir', directories.server, '--force'],
    send: ['--tls-dir', directories.client, '--tls-hostname', 'host-c.test'],
  });
  const refused = await running.sender.ended;
  t.is(refused.status, 1);
  t.regex(refused.stderr, /is for host-b, host-b\.test, 10\.77\.0\.2 and not for host-c\.test/);
});

test('a link of 1 Gbit/s is not exceeded, and is made use of', async (t) => {
  const scenario = await prepare(t);
  await scenario.hosts.sender.limit('1gbit');
  const { done } = await right(t, await start(t, scenario), scenario);
  const seconds = Number(done['seconds']);
  const ideal = (8 * DATA_BYTES) / 1e9;
  t.true(seconds > 0.95 * ideal, `${seconds} s is faster than the link, which needs ${ideal} s`);
  // Nothing more exact: the machine has other things to do.
  t.true(seconds < 5 * ideal, `${seconds} s where the link needs ${ideal} s`);
});

test('lost packets cost time and nothing else', async (t) => {
  const scenario = await prepare(t);
  await scenario.hosts.receiver.losePackets(1);
  await scenario.hosts.sender.losePackets(1);
  const { sent } = await right(t, await start(t, scenario), scenario);
  t.deepEqual(retries(sent), []);
  const lost = await scenario.hosts.receiver.lostPackets();
  t.true(lost > 100, `only ${lost} packets were lost`);
});

test('a link that is down for 10 s needs nobody to help', async (t) => {
  const scenario = await prepare(t);
  await scenario.hosts.sender.limit('100mbit');
  const running = await start(t, scenario);
  await onTheWay(running.sender, 8 << 20);
  await scenario.hosts.receiver.link('down');
  await sleep(10_000);
  await scenario.hosts.receiver.link('up');
  const { sent } = await right(t, running, scenario);
  // The connection itself outlives that with the timeouts that are the default.
  t.deepEqual(retries(sent), []);
});

for (const side of ['sender', 'receiver'] as const) {
  test(`a link that is down at the ${side}'s end for longer than the timeout: both find each other again`, async (t) => {
    const scenario = await prepare(t);
    await scenario.hosts.sender.limit('100mbit');
    const running = await start(t, scenario, {
      receive: ['--insecure', '--timeout', '6'],
      send: ['--timeout', '4'],
    });
    await onTheWay(running.sender, 8 << 20);
    await scenario.hosts[side].link('down');
    await sleep(7500);
    await scenario.hosts[side].link('up');
    const { sent, done } = await right(t, running, scenario);
    t.true(retries(sent).length > 0);
    // Resumed and not begun again: what had arrived is sent once, but for what was on the way.
    t.true((await running.sender.event('connected', 1))['resumes'] === true);
    t.true(Number(done['sentBytes']) < DATA_BYTES + (12 << 20), String(done['sentBytes']));
  });
}

test("when the receiver's address is gone for good, both sides end in bounded time and say why", async (t) => {
  const scenario = await prepare(t);
  await scenario.hosts.sender.limit('100mbit');
  const running = await start(t, scenario, {
    receive: ['--insecure', '--timeout', '2'],
    send: ['--timeout', '2', '--retry', '3'],
  });
  await onTheWay(running.sender, 8 << 20);
  await scenario.hosts.receiver.run('ip', 'address', 'flush', 'dev', DEVICE);
  const began = performance.now();
  const [sent, received] = await Promise.all([running.sender.ended, running.receiver.ended]);
  const took = performance.now() - began;
  t.true(took < 30_000, `${Math.round(took)} ms`);
  for (const [end, code, sentence] of [
    [sent, /^E_(TIMEOUT|CONNECT)$/, /^ballast-send: .*(silent for|nobody answered at|cannot be reached)/m],
    [received, /^E_CONNECTION_LOST$/, /^ballast-receive: the connection broke, and the sender did not come back/m],
  ] as const) {
    t.is(end.status, 1, end.stderr);
    t.regex(String(eventsIn(end.stdout).at(-1)?.['code']), code);
    t.regex(end.stderr, sentence);
  }
  t.false(existsSync(scenario.copy));
  t.true(existsSync(`${scenario.copy}.partial`), 'what arrived is kept for another try');

  // The same command, with the address back, goes on from there.
  await scenario.hosts.receiver.run('ip', 'address', 'add', '10.77.0.2/24', 'dev', DEVICE);
  const { done } = await right(t, await start(t, scenario), scenario);
  t.true(Number(done['sentBytes']) < DATA_BYTES - (2 << 20), String(done['sentBytes']));
});
