import { existsSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { Program, failedClearly, receiverProgram, runSender, type ProgramEnd } from '../support/programs.js';
import { Proxy, throttle } from './proxy.js';
import { MIB, scene } from './scenes.js';

const LAYOUT: Layout = [{ fill: Fill.data, pages: 64 * 256 }];

interface Ended extends ProgramEnd {
  /** Milliseconds from the signal to the end. */
  readonly after: number;
}

async function endedAfter(program: Program): Promise<Ended> {
  const started = performance.now();
  const end = await program.ended;
  return { ...end, after: performance.now() - started };
}

/** Two real programs, one of which gets a signal in the middle of the transfer. */
async function interrupted(
  t: ExecutionContext,
  side: 'sender' | 'receiver',
  signal: NodeJS.Signals,
  receiverArgs: readonly string[] = [],
  before?: (copy: string) => void,
): Promise<{ sender: Ended; receiver: Ended; copy: string; partial: string; source: string; port: number }> {
  const { source, copy, partial } = await scene(t, LAYOUT);
  before?.(copy);
  const { receiver, address } = await receiverProgram(t, [copy, ...receiverArgs]);
  const proxy = await Proxy.open(t, address, () => ({ toReceiver: [throttle(32 * MIB)] }));
  const sender = Program.sender(t, [source, '--to', proxy.to]);
  await proxy.passed(16 * MIB);
  (side === 'sender' ? sender : receiver).kill(signal);
  const [senderEnd, receiverEnd] = await Promise.all([endedAfter(sender), endedAfter(receiver)]);
  return { sender: senderEnd, receiver: receiverEnd, copy, partial, source, port: address.port };
}

/** A side that was not told would wait for its timeout of half a minute; how soon it is told is no matter of this test. */
const SOON_MS = 15_000;

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test.serial(`${signal} to the sender ends both sides, and the partial file is kept`, async (t) => {
    const { sender, receiver, copy, partial } = await interrupted(t, 'sender', signal);
    t.is(sender.status, status, sender.stderr);
    failedClearly(t, receiver, 1, /says: .*copy\.mem\.partial is kept: the same command goes on from there/);
    t.true(sender.after < SOON_MS, `${sender.after} ms`);
    t.true(receiver.after < SOON_MS, `${receiver.after} ms`);
    t.false(existsSync(copy));
    t.true(existsSync(partial));
  });

  test.serial(
    `${signal} to the receiver ends both sides, the partial file is kept, and the port is free`,
    async (t) => {
      const { sender, receiver, copy, partial, source, port } = await interrupted(t, 'receiver', signal);
      t.is(receiver.status, status, receiver.stderr);
      t.regex(receiver.stderr, /copy\.mem\.partial is kept: the same command goes on from there/);
      failedClearly(t, sender, 1, /the receiver at .* says: /);
      t.true(receiver.after < SOON_MS, `${receiver.after} ms`);
      t.true(sender.after < SOON_MS, `${sender.after} ms`);
      t.false(existsSync(copy));
      t.true(existsSync(partial));

      const again = Program.receiver(t, [copy, '--listen', `127.0.0.1:${port}`, '--json']);
      await again.event('listening');
      t.is((await runSender(t, [source, '--to', `127.0.0.1:${port}`])).status, 0);
      t.is((await again.ended).status, 0);
      t.is((await again.event('connected'))['resumes'], true);
      t.is(firstWrongPage(copy, LAYOUT), undefined);
    },
  );
}

test.serial('SIGTERM in place leaves the file marked, and says so', async (t) => {
  const { receiver, copy } = await interrupted(t, 'receiver', 'SIGTERM', ['--in-place'], (file) => {
    writeMemoryFile(file, LAYOUT, 2);
  });
  t.is(receiver.status, 143);
  t.regex(receiver.stderr, /copy\.mem is incomplete and must not be used/);
  t.true(existsSync(`${copy}.incomplete`));
});

test.serial('SIGINT to a receiver that waits for its sender to come back ends it at once', async (t) => {
  const { source, copy, partial } = await scene(t, LAYOUT);
  const { receiver, address } = await receiverProgram(t, [copy]);
  const proxy = await Proxy.open(t, address, () => ({ toReceiver: [throttle(32 * MIB)] }));
  const sender = Program.sender(t, [source, '--to', proxy.to]);
  await proxy.passed(16 * MIB);
  sender.kill('SIGKILL');
  await receiver.event('retry');
  receiver.kill('SIGINT');
  const end = await endedAfter(receiver);
  t.is(end.status, 130, end.stderr);
  t.true(end.after < 1500, `${end.after} ms`);
  t.regex(end.stderr, /copy\.mem\.partial is kept/);
  t.true(existsSync(partial));
});

test.serial('SIGINT to a sender that tries again ends it at once', async (t) => {
  const { source, copy } = await scene(t, LAYOUT);
  const { receiver, to } = await receiverProgram(t, [copy]);
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port: Number(to.split(':')[1]) }, () => ({
    toReceiver: [throttle(32 * MIB)],
  }));
  const sender = Program.sender(t, [source, '--to', proxy.to, '--json']);
  await proxy.passed(16 * MIB);
  receiver.kill('SIGKILL');
  await sender.event('retry', 2);
  sender.kill('SIGINT');
  const end = await endedAfter(sender);
  t.is(end.status, 130, end.stderr);
  t.true(end.after < 1500, `${end.after} ms`);
});

test.serial('SIGTERM to the receiver while it tells what it holds ends both sides', async (t) => {
  const layout: Layout = [{ fill: Fill.data, pages: 128 * 1024 }];
  const { source, copy, partial } = await scene(t, layout);
  // All of it is there already: there is nothing but hashing and telling.
  writeMemoryFile(partial, layout);
  const { receiver, to } = await receiverProgram(t, [copy]);
  const sender = Program.sender(t, [source, '--to', to, '--json']);
  await receiver.event('connected');
  receiver.kill('SIGTERM');
  const [senderEnd, receiverEnd] = await Promise.all([endedAfter(sender), endedAfter(receiver)]);
  t.is(receiverEnd.status, 143, receiverEnd.stderr);
  t.is(senderEnd.status, 1, senderEnd.stderr);
  t.true(senderEnd.after < SOON_MS, `${senderEnd.after} ms`);
  t.true(existsSync(partial));
});
