import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { STRATEGY_NAMES } from '@ballast/sender';
import { temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import {
  Program,
  eventsIn,
  failedClearly,
  programFile,
  receiverProgram,
  runReceiver,
  runSender,
  type JsonObject,
} from '../support/programs.js';
import { Wire } from '../support/wire.js';

const MIXED: Layout = [
  { fill: Fill.data, pages: 50 },
  { fill: Fill.hole, pages: 500 },
  { fill: Fill.zero, pages: 17 },
  { fill: Fill.speck, pages: 3 },
];
/** More than the wire and both programs hold between them. */
const LARGE: Layout = [{ fill: Fill.data, pages: 8000 }];

const RESULT_FIELDS = {
  root: 'string',
  memoryBytes: 'number',
  dataBytes: 'number',
  zeroBytes: 'number',
  freeBytes: 'number',
  wireBytes: 'number',
  sentBytes: 'number',
  storedBytes: 'number',
  scannedPages: 'number',
  askedPages: 'number',
  whiteouts: 'number',
  mapBytes: 'number',
  mapDigest: 'string',
  strategy: 'string',
  seconds: 'number',
} as const;

function typesOf(event: JsonObject): Record<string, string> {
  return Object.fromEntries(Object.entries(event).map(([name, value]) => [name, typeof value]));
}

for (const strategy of STRATEGY_NAMES) {
  test(`the events of both programs tell of a transfer with ${strategy} from listening to done`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, MIXED);
    const { receiver, to } = await receiverProgram(t, [copy]);
    const sender = await runSender(t, [source, '--to', to, '--json', '--strategy', strategy]);
    const received = await receiver.ended;
    t.is(sender.status, 0, sender.stderr);
    t.is(received.status, 0, received.stderr);
    t.is(sender.stderr, '');
    t.is(received.stderr, '');
    t.true(sender.stdout.endsWith('\n') && received.stdout.endsWith('\n'));

    const [sent, got] = [eventsIn(sender.stdout), eventsIn(received.stdout)];
    t.is(got[0]?.event, 'listening');
    t.is(got.filter(({ event }) => event === 'listening').length, 1);
    for (const events of [sent, got]) {
      const done = events.at(-1);
      t.is(done?.event, 'done');
      t.is(events.filter(({ event }) => event === 'done').length, 1);
      t.is(events.filter(({ event }) => event === 'connected').length, 1);
      t.deepEqual(typesOf(done ?? {}), { event: 'string', ...RESULT_FIELDS });
      t.regex(String(done?.['root']), /^[0-9a-f]{64}$/);
      t.is(done?.['memoryBytes'], 570 * PAGE);
      t.is(done?.['dataBytes'], 53 * PAGE);
      t.is(Number(done?.['dataBytes']) + Number(done?.['zeroBytes']) + Number(done?.['freeBytes']), 570 * PAGE);
      t.is(done?.['strategy'], strategy);
    }
    t.is(sent.at(-1)?.['root'], got.at(-1)?.['root']);
    t.is(firstWrongPage(copy, MIXED), undefined);
  });
}

for (const channels of ['auto', '1', '3']) {
  test(`--channels ${channels} moves a memory`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, MIXED);
    const { receiver, to } = await receiverProgram(t, [copy]);
    const sender = await runSender(t, [source, '--to', to, '--json', '--channels', channels]);
    t.is(sender.status, 0, sender.stderr);
    t.is(eventsIn(sender.stdout)[0]?.['channels'], channels === '3' ? 3 : 1);
    t.is((await receiver.ended).status, 0);
    t.is(firstWrongPage(copy, MIXED), undefined);
  });
}

test('the digest of a file is the root of its transfer, and the report holds the result', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy, report] = [join(folder, 'guest.mem'), join(folder, 'copy.mem'), join(folder, 'report.json')];
  writeMemoryFile(source, MIXED);
  const { receiver, to } = await receiverProgram(t, [copy]);
  const sender = await runSender(t, [source, '--to', to, '--json', '--report', report]);
  t.is(sender.status, 0, sender.stderr);
  const done = eventsIn(sender.stdout).at(-1);
  await receiver.ended;

  const { event, ...result } = done ?? { event: '' };
  t.is(event, 'done');
  t.deepEqual(JSON.parse(readFileSync(report, 'utf8')), result);
  for (const path of [source, copy]) {
    const plain = await runSender(t, ['digest', path]);
    t.is(plain.stdout, `${String(done?.['root'])}\n`);
    t.is(plain.status, 0);
    const [digest] = eventsIn((await runSender(t, ['digest', path, '--json'])).stdout);
    t.is(digest?.['root'], done?.['root']);
    t.is(digest?.['dataBytes'], 53 * PAGE);
  }
});

test('a report that cannot be written is a failure that says that the memory was sent', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  const { receiver, to } = await receiverProgram(t, [copy]);
  const sender = await runSender(t, [source, '--to', to, '--quiet', '--report', '/dev/full']);
  failedClearly(t, sender, 1, /the memory was sent and verified, but the report .* cannot be written \(ENOSPC\)/);
  t.is((await receiver.ended).status, 0);
});

test('--quiet says nothing when all is well', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  // Without --json nobody can know a port that was chosen: take one that was free a moment ago.
  const { receiver: other, address } = await receiverProgram(t, [join(folder, 'other.mem')]);
  other.kill('SIGTERM');
  await other.ended;
  const listen = `127.0.0.1:${address.port}`;
  const receiver = Program.receiver(t, [copy, '--listen', listen, '--quiet']);
  const send = async (): Promise<string> => {
    for (;;) {
      const sender = await runSender(t, [source, '--to', listen, '--quiet']);
      if (sender.status === 0) return sender.stdout + sender.stderr;
      // Not listening yet.
      t.regex(sender.stderr, /nobody listens/);
    }
  };
  t.is(await send(), '');
  const received = await receiver.ended;
  t.is(received.status, 0);
  t.is(received.stdout + received.stderr, '');
});

test('without options a person reads where it listens, what came and that it was verified', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  const receiver = Program.receiver(t, [copy, '--listen', '127.0.0.1:0']);
  const [, to = ''] = await receiver.said(/listening on (127\.0\.0\.1:\d+)/);
  const sender = await runSender(t, [source, '--to', to]);
  const received = await receiver.ended;
  for (const { status, stdout, stderr } of [sender, received]) {
    t.is(status, 0, stderr);
    t.is(stdout, '');
    t.regex(stderr, /verified/);
    t.regex(stderr, /root {3}[0-9a-f]{64}/);
  }
});

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`a receiver that waits ends with ${status} on ${signal} and makes nothing`, async (t) => {
    const folder = await temporaryFolder(t);
    const copy = join(folder, 'copy.mem');
    const { receiver } = await receiverProgram(t, [copy]);
    receiver.kill(signal);
    const end = await receiver.ended;
    failedClearly(t, end, status, /interrupted/);
    t.is(eventsIn(end.stdout).at(-1)?.['code'], 'E_ABORTED');
    t.false(existsSync(copy));
    t.false(existsSync(`${copy}.partial`));
  });

  test(`a receiver ends with ${status} on ${signal} in the middle, and the sender says why`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, LARGE);
    const { receiver, address } = await receiverProgram(t, [copy]);
    const wire = await Wire.open(t, address, 1 << 20);
    const sender = Program.sender(t, [source, '--to', `127.0.0.1:${wire.address.port}`, '--json']);
    await wire.held;
    receiver.kill(signal);
    const received = await receiver.ended;
    wire.release();
    failedClearly(t, received, status, /interrupted/);
    const sent = await sender.ended;
    failedClearly(t, sent, 1, /the receiver at .* says: the receiver was interrupted/);
    t.is(eventsIn(sent.stdout).at(-1)?.['code'], 'E_ABORTED');
    t.false(existsSync(copy));
  });

  test(`a sender ends with ${status} on ${signal} in the middle, and the receiver says why`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, LARGE);
    const { receiver, address } = await receiverProgram(t, [copy]);
    const wire = await Wire.open(t, address, 1 << 20);
    const sender = Program.sender(t, [source, '--to', `127.0.0.1:${wire.address.port}`, '--json']);
    await wire.held;
    sender.kill(signal);
    // Time for the signal to get there, so that what is released now cannot be the rest of the transfer.
    await new Promise((resolve) => setTimeout(resolve, 300));
    wire.release();
    failedClearly(t, await sender.ended, status, /interrupted/);
    const received = await receiver.ended;
    failedClearly(t, received, 1, /the sender at .* says: the transfer was interrupted/);
    t.is(eventsIn(received.stdout).at(-1)?.['code'], 'E_ABORTED');
    t.false(existsSync(copy));
  });
}

test('--keep-listening serves one sender after the other', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  const { receiver, to } = await receiverProgram(t, [copy, '--force', '--keep-listening']);
  for (const seed of [1, 2]) {
    writeMemoryFile(source, MIXED, seed);
    const sender = await runSender(t, [source, '--to', to, '--json']);
    t.is(sender.status, 0, sender.stderr);
    const done = await receiver.event('done', seed - 1);
    t.is(done['root'], eventsIn(sender.stdout).at(-1)?.['root']);
    t.is(firstWrongPage(copy, MIXED, seed), undefined);
  }
  receiver.kill('SIGTERM');
  t.is((await receiver.ended).status, 143);
});

test('--keep-listening goes on after a transfer that failed', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, MIXED);
  const copy = join(folder, 'copy.mem');
  const { receiver, to } = await receiverProgram(t, [copy, '--keep-listening']);
  t.is((await runSender(t, [source, source, '--to', to])).status, 1);
  const error = await receiver.event('error');
  t.is(error['code'], 'E_MISMATCH');
  t.is((await runSender(t, [source, '--to', to])).status, 0);
  receiver.kill('SIGINT');
  t.is((await receiver.ended).status, 130);
  t.is(firstWrongPage(copy, MIXED), undefined);
});

test('an older copy that is missing is refused before anyone is invited', async (t) => {
  const folder = await temporaryFolder(t);
  const args = [join(folder, 'copy.mem'), '--reuse', join(folder, 'old.mem'), '--listen', '127.0.0.1:0', '--json'];
  const end = await runReceiver(t, [...args, '--keep-listening']);
  failedClearly(t, end, 1, /old\.mem does not exist; --reuse expects an older copy of the memory/);
  t.deepEqual(
    eventsIn(end.stdout).map(({ event }) => event),
    ['error'],
  );
});

test('--keep-listening says once to each sender that an older copy has vanished, and takes up what is there again', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, old, copy] = [join(folder, 'guest.mem'), join(folder, 'old.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MIXED);
  writeMemoryFile(old, MIXED);
  const { receiver, to } = await receiverProgram(t, [copy, '--reuse', old, '--force', '--keep-listening']);
  t.is((await runSender(t, [source, '--to', to])).status, 0);
  unlinkSync(old);
  for (let n = 0; n < 2; n++) {
    failedClearly(t, await runSender(t, [source, '--to', to]), 1, /the receiver at .* says: .*old\.mem does not exist/);
  }
  writeMemoryFile(old, MIXED);
  const last = await runSender(t, [source, '--to', to, '--json']);
  t.is(last.status, 0, last.stderr);
  t.is(eventsIn(last.stdout).at(-1)?.['sentBytes'], 0);
  receiver.kill('SIGTERM');
  const end = await receiver.ended;
  t.is(end.status, 143);
  t.is(eventsIn(end.stdout).filter(({ code }) => code === 'E_NOT_FOUND').length, 2);
});

const hasScript = spawnSync('script', ['--version']).error === undefined;

(hasScript ? test : test.skip)('a terminal that nobody gave a size does not stop a transfer', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const { receiver, to } = await receiverProgram(t, [copy]);
  // Slow enough for progress to be shown.
  const send = [
    process.execPath,
    programFile('sender/bin/ballast-send.js'),
    source,
    '--to',
    to,
    '--bandwidth',
    '300Mbit',
  ];
  const words = send.map((word) => `'${word}'`).join(' ');
  const run = spawn(
    'script',
    ['-qec', `stty cols 0 rows 0; exec timeout --foreground -s KILL 50 ${words}`, '/dev/null'],
    {
      env: { ...process.env, TERM: 'xterm', CI: undefined },
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 60_000,
      killSignal: 'SIGKILL',
    },
  );
  const shown = text(run.stdout);
  const [status] = (await once(run, 'close')) as [number | null];
  t.is(status, 0);
  t.regex(await shown, /send: .* MiB of 31\.3 MiB[^]*verified, in/);
  t.is((await receiver.ended).status, 0);
  t.is(firstWrongPage(copy, LARGE), undefined);
});
