import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { Program, eventsIn, failedClearly, receiverProgram } from '../support/programs.js';
import { attempt, codeOf, messageOf } from '../support/transfer.js';
import { Proxy, throttle } from './proxy.js';
import { MIB, scene } from './scenes.js';

const LAYOUT: Layout = [{ fill: Fill.data, pages: 64 * 256 }];

/** Two real programs in the middle of a transfer. */
async function midway(
  t: ExecutionContext,
  senderArgs: readonly string[],
  receiverArgs: readonly string[],
): Promise<{ sender: Program; receiver: Program; copy: string; partial: string }> {
  const { source, copy, partial } = await scene(t, LAYOUT);
  const { receiver, address } = await receiverProgram(t, [copy, ...receiverArgs]);
  const proxy = await Proxy.open(t, address, () => ({ toReceiver: [throttle(64 * MIB)] }));
  const sender = Program.sender(t, [source, '--to', proxy.to, '--json', ...senderArgs]);
  await proxy.passed(16 * MIB);
  return { sender, receiver, copy, partial };
}

test.serial(
  'a sender that is stopped is given up after the timeout, and again after the wait for its return',
  async (t) => {
    const { sender, receiver, copy, partial } = await midway(t, [], ['--timeout', '1']);
    sender.kill('SIGSTOP');
    const started = performance.now();
    const end = await receiver.ended;
    const took = performance.now() - started;
    failedClearlyAtLast(t, end.stderr, /did not come back within 1 s; .*copy\.mem\.partial is kept/);
    t.is(end.status, 1);
    t.is(eventsIn(end.stdout).find(({ event }) => event === 'retry')?.['code'], 'E_TIMEOUT');
    // A second of silence, counted from the last word before the stop, and a second for its return.
    t.true(took > 1000 && took < 20_000, `${took} ms`);
    t.true(existsSync(partial));
    t.false(existsSync(copy));
  },
);

test.serial('a receiver that is stopped is given up after the timeout', async (t) => {
  const { sender, receiver } = await midway(t, ['--timeout', '1', '--retry', '0'], []);
  receiver.kill('SIGSTOP');
  const started = performance.now();
  const end = await sender.ended;
  const took = performance.now() - started;
  failedClearly(t, end, 1, /has been silent for \d+ s; check the link/);
  // The silence counts from the last word that was heard, which may lie a good while before the stop.
  t.true(took < 20_000, `${took} ms`);
});

test.serial('a sender that is stopped for less than the timeout, and goes on, finishes', async (t) => {
  const { sender, receiver, copy } = await midway(t, ['--timeout', '10'], ['--timeout', '10']);
  sender.kill('SIGSTOP');
  await sleep(1500);
  sender.kill('SIGCONT');
  const [sent, received] = await Promise.all([sender.ended, receiver.ended]);
  t.is(sent.status, 0, sent.stderr);
  t.is(received.status, 0, received.stderr);
  t.false(eventsIn(sent.stdout).some(({ event }) => event === 'retry'));
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test.serial('a receiver that is stopped for less than the timeout, and goes on, finishes', async (t) => {
  const { sender, receiver, copy } = await midway(t, ['--timeout', '10'], ['--timeout', '10']);
  receiver.kill('SIGSTOP');
  await sleep(1500);
  receiver.kill('SIGCONT');
  const [sent, received] = await Promise.all([sender.ended, receiver.ended]);
  t.is(sent.status, 0, sent.stderr);
  t.is(received.status, 0, received.stderr);
  t.false(eventsIn(sent.stdout).some(({ event }) => event === 'retry'));
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test.serial(
  'a receiver that is stopped for longer than the timeout, and goes on, finishes on another connection',
  async (t) => {
    const { sender, receiver, copy } = await midway(t, ['--timeout', '1'], ['--timeout', '8']);
    receiver.kill('SIGSTOP');
    await sender.event('retry');
    receiver.kill('SIGCONT');
    const [sent, received] = await Promise.all([sender.ended, receiver.ended]);
    t.is(sent.status, 0, sent.stderr);
    t.is(received.status, 0, received.stderr);
    t.is(firstWrongPage(copy, LAYOUT), undefined);
  },
);

test.serial(
  'a sender that is stopped for longer than the timeout, and goes on, finishes on another connection',
  async (t) => {
    const { sender, receiver, copy } = await midway(t, ['--timeout', '8'], ['--timeout', '3']);
    sender.kill('SIGSTOP');
    await receiver.event('retry');
    sender.kill('SIGCONT');
    const [sent, received] = await Promise.all([sender.ended, receiver.ended]);
    t.is(sent.status, 0, sent.stderr);
    t.is(received.status, 0, received.stderr);
    t.is(firstWrongPage(copy, LAYOUT), undefined);
  },
);

test.serial('heartbeats keep a connection alive while a large partial file is hashed', async (t) => {
  const layout: Layout = [
    { fill: Fill.zero, pages: 64 * 1024 },
    { fill: Fill.data, pages: 256 },
  ];
  const { source, copy, partial } = await scene(t, layout);
  // Of all that the receiver reads, nothing is worth telling: without heartbeats it says nothing for long.
  writeMemoryFile(partial, [{ fill: Fill.zero, pages: 64 * 1024 + 256 }]);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    send: { timeoutMs: 60, retryMs: 0 },
    receive: { timeoutMs: 60 },
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.is(firstWrongPage(copy, layout), undefined);
});

test.serial('a sender that reads zeros for long does not take its own silence for the receiver’s', async (t) => {
  const layout: Layout = [
    { fill: Fill.zero, pages: 48 * 1024 },
    { fill: Fill.data, pages: 256 },
  ];
  const { source, copy, partial } = await scene(t, layout);
  // More to tell than the sender asks for before it comes to the end.
  writeMemoryFile(partial, [{ fill: Fill.data, pages: 48 * 1024 + 256 }]);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    send: { timeoutMs: 60, retryMs: 0 },
    receive: { timeoutMs: 60 },
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.is(firstWrongPage(copy, layout), undefined);
});

/** The last line says why; those before it tell of retries. */
function failedClearlyAtLast(t: ExecutionContext, stderr: string, sentence: RegExp): void {
  t.regex(stderr.trimEnd().split('\n').at(-1) ?? '', sentence);
}
