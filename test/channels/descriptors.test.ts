import { execFile } from 'node:child_process';
import { readFile, readdir, readlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import ava, { type ExecutionContext } from 'ava';
import { channelPreamble } from '@ballast/shared/protocol';
import type { Address } from '@ballast/shared/transport';
import { temporaryFolder } from '../support/folder.js';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { Program, eventsIn, receiverProgram, type ProgramEnd } from '../support/programs.js';
import { Wire } from '../support/wire.js';
import { makeCertificates, whyNoOpenssl } from '../tls/certificates.js';

const test = testUnless(await whyNoOpenssl());
const run = promisify(execFile);

const LAYOUT: Layout = [{ fill: Fill.data, pages: 9000 }];
const NO_DESCRIPTOR = /turned away a connection from \S+: no file descriptor is left .*EMFILE/;
const TRIES = 50;

/** Sets how many descriptors a running program may have; what it has open stays so. */
async function limitDescriptors(pid: number, most: number): Promise<void> {
  await run('prlimit', ['--pid', String(pid), `--nofile=${most}:`]);
}

async function descriptorLimit(pid: number): Promise<number> {
  return Number(/^Max open files\s+(\d+)/m.exec(await readFile(`/proc/${pid}/limits`, 'utf8'))?.[1]);
}

/** The number that the next descriptor of a program will have. */
async function nextDescriptor(pid: number): Promise<number> {
  const open = new Set((await readdir(`/proc/${pid}/fd`)).map(Number));
  for (let fd = 0; ; fd++) if (!open.has(fd)) return fd;
}

/**
 * The least number of descriptors with which a program that has a connection can have another one in its place: that of
 * the connection may be above a free one, which something that is closed by now had before.
 */
async function descriptorsToConnect(pid: number): Promise<number> {
  const sockets = await Promise.all(
    (await readdir(`/proc/${pid}/fd`)).map(async (fd) => {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
      return target.startsWith('socket:') ? Number(fd) : 0;
    }),
  );
  return Math.max(await nextDescriptor(pid), Math.max(...sockets) + 1);
}

/** Connects, says that it wants to become a channel, and waits until the receiver has closed the connection. */
async function wantChannel(to: Address): Promise<void> {
  const socket = connect(to.port, to.host);
  socket.on('error', () => undefined).resume();
  // A reset is an end like any other here; `once` of node:events would throw it.
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write(channelPreamble(0));
  await closed;
}

async function runsOut(t: ExecutionContext, receive: readonly string[], send: readonly string[]): Promise<void> {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const { receiver, to, address } = await receiverProgram(t, [copy, ...receive]);
  const sender = Program.sender(t, [source, '--to', to, '--channels', '2', '--bandwidth', '50Mbit', '--json', ...send]);
  // The threads of the channels have all that they need open when pages come.
  while (
    !eventsIn(receiver.stdout).some(({ event, wireBytes }) => event === 'progress' && Number(wireBytes) > 2 ** 20)
  ) {
    t.false(eventsIn(receiver.stdout).some(({ event }) => event === 'error'));
    await sleep(10);
  }
  sender.kill('SIGSTOP');
  const usual = await descriptorLimit(receiver.pid);
  // Room for the connection, and none for another descriptor of it, unless something else took or gave one back meanwhile.
  let told = false;
  for (let n = 0; n < TRIES && !told; n++) {
    await limitDescriptors(receiver.pid, (await nextDescriptor(receiver.pid)) + 1);
    const closed = wantChannel(address);
    await Promise.race([closed, sleep(2000)]);
    await limitDescriptors(receiver.pid, usual);
    await closed;
    told = eventsIn(receiver.stdout).some(
      ({ event, message }) => event === 'warning' && NO_DESCRIPTOR.test(String(message)),
    );
  }
  t.true(told, receiver.stdout);
  sender.kill('SIGCONT');
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.is((await receiver.ended).status, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
}

ava.serial('a channel for which no descriptor is left is turned away, and the transfer goes on', async (t) => {
  await runsOut(t, [], []);
});

test('the same over TLS', async (t) => {
  const { receiverDirectory, senderDirectory } = await makeCertificates(await temporaryFolder(t));
  await runsOut(t, ['--tls-dir', receiverDirectory], ['--tls-dir', senderDirectory]);
});

/** Both programs are done, neither met a defect of its own, and what was begun with channels ended without. */
function wentOnAlone(t: ExecutionContext, copy: string, sent: ProgramEnd, received: ProgramEnd): void {
  t.is(sent.status, 0, sent.stderr);
  t.is(received.status, 0, received.stderr);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  for (const { stdout, stderr } of [sent, received]) {
    t.notRegex(stdout + stderr, /E_INTERNAL|unexpected failure/);
    const connected = eventsIn(stdout).filter(({ event }) => event === 'connected');
    t.deepEqual([connected[0]?.['channels'], connected.at(-1)?.['channels']], [4, 1]);
  }
}

/** Descriptors beside those that a receiver has open when it listens: too few for the threads of four channels. */
for (const more of [3, 5, 9]) {
  ava.serial(`a receiver with ${more} descriptors for four channels goes on without channels`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, LAYOUT);
    const { receiver, to } = await receiverProgram(t, [copy]);
    await limitDescriptors(receiver.pid, (await descriptorsToConnect(receiver.pid)) + more);
    const sender = Program.sender(t, [source, '--to', to, '--channels', '4', '--json']);
    wentOnAlone(t, copy, await sender.ended, await receiver.ended);
  });
}

for (const more of [0, 3, 8]) {
  ava.serial(`a sender with ${more} descriptors for four channels goes on without channels`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, LAYOUT);
    const { receiver, address } = await receiverProgram(t, [copy]);
    const wire = await Wire.open(t, address, 0);
    const sender = Program.sender(t, [
      source,
      '--to',
      `${wire.address.host}:${wire.address.port}`,
      '--channels',
      '4',
      '--json',
    ]);
    // It has connected, and waits for an answer to its hello.
    await wire.held;
    await limitDescriptors(sender.pid, (await descriptorsToConnect(sender.pid)) + more);
    wire.release();
    const sent = await sender.ended;
    wentOnAlone(t, copy, sent, await receiver.ended);
    t.true(
      eventsIn(sent.stdout).some(({ event, code }) => event === 'retry' && code === 'E_BUSY'),
      sent.stdout,
    );
  });
}

ava.serial('a receiver that has no descriptor left for a connection says so, once', async (t) => {
  const { receiver, to } = await receiverProgram(t, ['--sink', '--keep-listening']);
  const usual = await descriptorLimit(receiver.pid);
  await limitDescriptors(receiver.pid, await nextDescriptor(receiver.pid));
  const { message, code } = await receiver.event('warning');
  t.is(code, 'E_BUSY');
  t.regex(String(message), /nobody can connect: no file descriptor is left \(EMFILE\); allow more with ulimit -n/);
  await limitDescriptors(receiver.pid, usual);
  const source = join(await temporaryFolder(t), 'guest.mem');
  writeMemoryFile(source, LAYOUT);
  t.is((await Program.sender(t, [source, '--to', to]).ended).status, 0);
  t.is(eventsIn(receiver.stdout).filter(({ event }) => event === 'warning').length, 1);
});

/** With each of these, a thread that is started could open some of what it needs, and not the rest. */
for (const more of [3, 14]) {
  ava.serial(
    `a receiver with ${more} descriptors for four channels has no less of them for the next sender`,
    async (t) => {
      const folder = await temporaryFolder(t);
      const source = join(folder, 'guest.mem');
      writeMemoryFile(source, LAYOUT);
      const { receiver, to } = await receiverProgram(t, ['--sink', '--keep-listening']);
      const send = async (...args: string[]): Promise<void> => {
        const { status, stderr } = await Program.sender(t, [source, '--to', to, ...args]).ended;
        t.is(status, 0, stderr);
      };
      // All that is opened once for good is.
      await send();
      await receiver.event('done');
      const before = (await readdir(`/proc/${receiver.pid}/fd`)).length;
      await limitDescriptors(receiver.pid, (await descriptorsToConnect(receiver.pid)) + more);
      await send('--channels', '4');
      await receiver.event('done', 1);
      t.true(
        eventsIn(receiver.stdout).some(({ event, code }) => event === 'retry' && code === 'E_BUSY'),
        receiver.stdout,
      );
      await send();
      await receiver.event('done', 2);
      t.is((await readdir(`/proc/${receiver.pid}/fd`)).length, before);
    },
  );
}
