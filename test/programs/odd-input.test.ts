import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { connect as connectTls } from 'node:tls';
import test from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import {
  Program,
  eventsIn,
  failedClearly,
  receiverProgram,
  runReceiver,
  runSender,
  type ProgramEnd,
} from '../support/programs.js';
import { testUnless } from '../support/mounts.js';

const run = promisify(execFile);

const SMALL: Layout = [
  { fill: Fill.data, pages: 20 },
  { fill: Fill.hole, pages: 20 },
];
/** Nobody needs to listen where the source is refused first. */
const NOWHERE = '127.0.0.1:9';

test('the error event has the code and the sentence that stderr has', async (t) => {
  const folder = await temporaryFolder(t);
  const sent = await runSender(t, [join(folder, 'missing.mem'), '--to', NOWHERE, '--json']);
  failedClearly(t, sent, 1, /missing\.mem does not exist; expected a memory file/);
  const events = eventsIn(sent.stdout);
  t.deepEqual(
    events.map(({ event }) => event),
    ['error'],
  );
  t.deepEqual(Object.keys(events[0] ?? {}).sort(), ['code', 'event', 'message']);
  t.is(events[0]?.['code'], 'E_NOT_FOUND');
  t.is(sent.stderr, `ballast-send: ${String(events[0]?.['message'])}\n`);
});

for (const { what, make, sentence } of [
  {
    what: 'an empty file',
    make: (path: string): void => {
      writeFileSync(path, '');
    },
    sentence: /guest\.mem is empty; expected a memory file/,
  },
  {
    what: 'a size that is no multiple of the page',
    make: (path: string): void => {
      writeFileSync(path, Buffer.alloc(2 * PAGE + 1));
    },
    sentence: /guest\.mem has 8193 bytes, which is no multiple of the 4096-byte page/,
  },
  {
    what: 'a directory',
    make: (path: string): void => {
      mkdirSync(path);
    },
    sentence: /guest\.mem is a directory; expected a memory file/,
  },
  {
    what: 'a file that does not exist',
    make: (): void => {
      // It does not.
    },
    sentence: /guest\.mem does not exist; expected a memory file/,
  },
]) {
  test(`${what} is refused by every command that reads a memory`, async (t) => {
    const folder = await temporaryFolder(t);
    const path = join(folder, 'guest.mem');
    make(path);
    failedClearly(t, await runSender(t, [path, '--to', NOWHERE]), 1, sentence);
    failedClearly(t, await runSender(t, ['map', path]), 1, sentence);
    failedClearly(t, await runSender(t, ['digest', path]), 1, sentence);
  });
}

test('memory files that are too much together are refused before anyone is asked', async (t) => {
  const folder = await temporaryFolder(t);
  const paths = ['a.mem', 'b.mem'].map((name) => join(folder, name));
  for (const path of paths) {
    writeFileSync(path, '');
    truncateSync(path, 2 ** 43);
  }
  const files = Array.from({ length: 5 }, () => paths).flat();
  const sent = await runSender(t, [...files, '--to', NOWHERE, '--json']);
  failedClearly(
    t,
    sent,
    1,
    /have 87960930222080 bytes together; a guest's memory may have at most 70368744177664 \(64 TiB\)/,
  );
  t.is(eventsIn(sent.stdout)[0]?.['code'], 'E_BAD_FILE');
});

test('a FIFO is refused and not waited for', async (t) => {
  const folder = await temporaryFolder(t);
  await run('mkfifo', [join(folder, 'guest.mem')]);
  const sent = await runSender(t, [join(folder, 'guest.mem'), '--to', NOWHERE]);
  failedClearly(t, sent, 1, /guest\.mem is not a regular file; expected a memory file/);
});

for (const { what, option, contents, sentence } of [
  { what: 'a bitmap of the wrong length', option: 'bitmap', contents: 'abc', sentence: /balloon .*3 bytes.*5/s },
  {
    what: 'a map whose entries overlap',
    option: 'map',
    contents: JSON.stringify([
      { start: 0, length: 8192, depth: 0, zero: true, data: false },
      { start: 4096, length: 8192, depth: 0, zero: true, data: false },
    ]),
    sentence: /entry 1/,
  },
  {
    what: "the output of nbdinfo's --totals",
    option: 'map',
    contents: JSON.stringify([{ size: 163840, percent: 100, type: 0, description: 'data' }]),
    sentence: /totals/,
  },
  { what: 'a map that is no JSON', option: 'map', contents: 'Offset Length Mapped', sentence: /JSON/ },
]) {
  test(`${what} is refused as a balloon map`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, map] = [join(folder, 'guest.mem'), join(folder, 'balloon')];
    writeMemoryFile(source, SMALL);
    writeFileSync(map, contents);
    const sent = await runSender(t, [source, '--to', NOWHERE, '--json', '--balloon', `${option}:${map}`]);
    failedClearly(t, sent, 1, sentence);
    t.is(eventsIn(sent.stdout).at(-1)?.['code'], 'E_BALLOON_MAP');
  });
}

test('a balloon map that does not exist is refused', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  for (const kind of ['bitmap', 'map']) {
    const sent = await runSender(t, [source, '--to', NOWHERE, '--balloon', `${kind}:${join(folder, 'missing')}`]);
    failedClearly(t, sent, 1, /missing.*does not exist/);
  }
});

test('nobody listening is one sentence', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  const { receiver, to } = await receiverProgram(t, [join(folder, 'copy.mem')]);
  receiver.kill('SIGTERM');
  await receiver.ended;
  failedClearly(
    t,
    await runSender(t, [source, '--to', to]),
    1,
    /nobody listens at 127\.0\.0\.1:\d+; start ballast-receive there/,
  );
});

test('an unknown host name is one sentence', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  const sent = await runSender(t, [source, '--to', 'no-such-host.invalid:7700']);
  failedClearly(t, sent, 1, /the host name in no-such-host\.invalid:7700 is not known here/);
});

test('something else that listens is told apart from a receiver', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
  const sent = await runSender(t, [source, '--to', `127.0.0.1:${port}`]);
  failedClearly(t, sent, 1, /does not speak Ballast's protocol: it looks like HTTP/);
});

test('a port in use is one sentence', async (t) => {
  const folder = await temporaryFolder(t);
  const { to } = await receiverProgram(t, [join(folder, 'a.mem')]);
  const second = await runReceiver(t, [join(folder, 'b.mem'), '--listen', to]);
  failedClearly(t, second, 1, /127\.0\.0\.1:\d+ is in use by another program; choose another port/);
  t.deepEqual(readdirSync(folder), []);
});

test('strangers that speak HTTP, TLS or nothing are turned away, and the sender that comes after them is served', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, SMALL);
  const { receiver, to, address } = await receiverProgram(t, [copy]);

  const http = request({ ...address, path: '/' });
  http.on('error', () => undefined);
  http.end();
  t.regex(String((await receiver.event('warning', 0))['message']), /it looks like HTTP/);
  const tls = connectTls({ ...address, rejectUnauthorized: false });
  tls.on('error', () => undefined);
  t.regex(String((await receiver.event('warning', 1))['message']), /it looks like TLS/);
  const silent = connect(address);
  silent.on('error', () => undefined);
  await once(silent, 'connect');
  silent.destroy();
  await receiver.event('warning', 2);
  for (const socket of [http, tls]) socket.destroy();

  t.is((await runSender(t, [source, '--to', to])).status, 0);
  const received = await receiver.ended;
  t.is(received.status, 0, received.stderr);
  t.notRegex(received.stderr, /^\s+at /m);
  t.is(firstWrongPage(copy, SMALL), undefined);
});

test('a listener beyond this machine is refused unless it is said to be insecure', async (t) => {
  const folder = await temporaryFolder(t);
  const copy = join(folder, 'copy.mem');
  const refused = await runReceiver(t, [copy, '--listen', '0.0.0.0:0']);
  failedClearly(t, refused, 2, /0\.0\.0\.0:0 can be reached from other machines/);
  failedClearly(t, await runReceiver(t, [copy, '--listen', '[::]:0']), 2, /can be reached from other machines/);
  const allowed = Program.receiver(t, [copy, '--listen', '0.0.0.0:0', '--insecure', '--json']);
  await allowed.event('listening');
});

test('files of different number on the two sides fail on both with the same words', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, SMALL);
  const { receiver, to } = await receiverProgram(t, [copy]);
  failedClearly(
    t,
    await runSender(t, [source, source, '--to', to]),
    1,
    /the sender has 2 memory file\(s\) and the receiver was given 1/,
  );
  failedClearly(t, await receiver.ended, 1, /the sender has 2 memory file\(s\) and the receiver was given 1/);
  t.deepEqual(readdirSync(folder), ['guest.mem']);
});

test('a name that the receiver cannot make is refused before it listens', async (t) => {
  const folder = await temporaryFolder(t);
  const exists = join(folder, 'exists.mem');
  writeFileSync(exists, 'precious');
  const cases: [string[], RegExp][] = [
    [[join(folder, 'missing', 'copy.mem')], /the folder .*missing does not exist/],
    [[folder], /is a directory; expected the name of the file to make/],
    [[exists], /exists already; remove it, choose another name, or replace it with --force/],
    [[join(folder, 'none.mem'), '--in-place'], /none\.mem does not exist; --in-place writes into a file that does/],
  ];
  for (const [args, sentence] of cases) {
    const end = await runReceiver(t, [...args, '--listen', '127.0.0.1:0', '--json']);
    failedClearly(t, end, 1, sentence);
    t.deepEqual(
      eventsIn(end.stdout).map(({ event }) => event),
      ['error'],
    );
  }
  t.deepEqual(readdirSync(folder), ['exists.mem']);
});

test('wrong usage has status 2 and one sentence, on both sides', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  const sends: [string[], RegExp][] = [
    [[], /no memory file was given/],
    [[source], /add --to HOST:PORT/],
    [[source, '--to'], /--to/],
    [[source, '--to', 'a:b:c'], /--to.*'a:b:c' is no address/],
    [[source, '--to', 'host:0'], /port 0; expected 1 to 65535/],
    [[source, '--to', 'host:70000'], /port 70000/],
    [
      [source, '--to', NOWHERE, '--strategy', 'magic'],
      /--strategy cannot be 'magic'; expected unmodified, consult, skip or bitmap/,
    ],
    [[source, '--to', NOWHERE, '--balloon', 'qcow2:x'], /'qcow2:x' is no balloon map/],
    [[source, '--to', NOWHERE, '--balloon', '7:holes'], /names memory file 7, but there are 1/],
    [[source, '--to', NOWHERE, '--read', 'dma'], /--read cannot be 'dma'; expected pread or mmap/],
    [[source, '--to', NOWHERE, '--timeout', 'soon'], /--timeout.*is no time/],
    [[source, '--to', NOWHERE, '--fast'], /unknown option '--fast'/],
    [['map'], /missing required argument/],
    [['digest'], /missing required argument/],
  ];
  const receives: [string[], RegExp][] = [
    [[], /no file was given/],
    [['a', 'a'], /given twice/],
    [['a', '--sink', '--in-place'], /choose one of them/],
    [['a', '--force', '--in-place'], /choose one of them/],
    [['a', '--listen', 'nonsense:port'], /is no address/],
    [['a', '--colour', 'red'], /unknown option '--colour'/],
  ];
  const inTurn = async (cases: [string[], RegExp][], start: typeof runSender): Promise<void> => {
    for (const [args, sentence] of cases) failedClearly(t, await start(t, args, { cwd: folder }), 2, sentence);
  };
  await Promise.all([inTurn(sends, runSender), inTurn(receives, runReceiver)]);
  t.deepEqual(readdirSync(folder), ['guest.mem']);
});

test('help and version are no failure', async (t) => {
  for (const args of [['--help'], ['--version'], ['map', '--help']]) {
    const end = await runSender(t, args);
    t.is(end.status, 0);
    t.not(end.stdout, '');
    t.is(end.stderr, '');
  }
  t.is((await runReceiver(t, ['--help'])).status, 0);
});

const asUser = testUnless(process.geteuid?.() === 0 ? undefined : 'only root can become another user');

asUser('a folder that may not be written is one sentence on both sides', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, closed] = [join(folder, 'guest.mem'), join(folder, 'closed')];
  writeMemoryFile(source, SMALL);
  mkdirSync(closed);
  chmodSync(folder, 0o755);
  chmodSync(closed, 0o555);
  // Another user cannot write this one's coverage.
  const env = { ...process.env, NODE_V8_COVERAGE: '' };
  const { receiver, to } = await receiverProgram(t, [join(closed, 'copy.mem')], { uid: 65534, gid: 65534, env });
  failedClearly(t, await runSender(t, [source, '--to', to]), 1, /copy\.mem.* cannot be written .*\(EACCES\)/);
  failedClearly(t, await receiver.ended, 1, /copy\.mem.* cannot be written .*\(EACCES\)/);
  t.deepEqual(readdirSync(closed), []);
});

asUser('a folder that may not be searched is one sentence before anyone can connect', async (t) => {
  const folder = await temporaryFolder(t);
  const env = { ...process.env, NODE_V8_COVERAGE: '' };
  const end = await runReceiver(t, [join(folder, 'copy.mem')], { uid: 65534, gid: 65534, env });
  failedClearly(t, end, 1, /copy\.mem cannot be written .*\(EACCES\)/);
});

test('a name that is not UTF-8 is refused, and no file is made under another', async (t) => {
  const folder = await temporaryFolder(t);
  const within = ['/bin/sh', '-c', 'exec "$0" "$@" "$(printf "guest\\377.mem")"'];
  const end = await runReceiver(t, ['--listen', '127.0.0.1:0'], { within, cwd: folder });
  failedClearly(t, end, 2, /the name guest.*\.mem is not UTF-8/);
  t.deepEqual(readdirSync(folder), []);
});

test('a source that shrinks before it is sent is refused with its new size, not with a crash', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  truncateSync(source, 100);
  failedClearly(t, await runSender(t, [source, '--to', NOWHERE, '--read', 'mmap']), 1, /has 100 bytes/);
  t.false(existsSync(join(folder, 'core')));
});

for (const { what, args } of [
  {
    what: 'the report of a transfer',
    args: (memory: string, other: string) => [memory, '--to', NOWHERE, '--report', other],
  },
  { what: 'a saved bitmap', args: (memory: string, other: string) => ['map', memory, '--save-bitmap', other] },
  {
    what: 'the report of a prediction',
    args: (memory: string, other: string) => ['trial', '--predict', memory, '--report', other],
  },
]) {
  test(`${what} never takes the place of the memory, whatever it is called`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, other] = [join(folder, 'guest.json'), join(folder, 'other.json')];
    writeMemoryFile(source, SMALL);
    symlinkSync(source, other);
    for (const name of [source, other]) {
      failedClearly(t, await runSender(t, args(source, name)), 2, /\.json is the memory file itself/);
      t.is(firstWrongPage(source, SMALL), undefined);
    }
  });
}

for (const { what, args } of [
  { what: 'a saved bitmap', args: (memory: string, pipe: string) => ['map', memory, '--save-bitmap', pipe] },
  {
    what: 'a report',
    args: (_: string, pipe: string) => ['trial', '--predict', '--memory', '1MiB', '--in-use', '25%', '--report', pipe],
  },
]) {
  test(`${what} that goes into a pipe which nobody reads is an error, and nothing is waited for`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, pipe] = [join(folder, 'guest.mem'), join(folder, 'pipe.json')];
    writeMemoryFile(source, SMALL);
    await run('mkfifo', [pipe]);
    failedClearly(t, await runSender(t, args(source, pipe)), 1, /pipe\.json cannot be written \(ENXIO\): nobody reads/);
  });
}

test('a report that cannot be written where it should be is refused before anything is sent', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, SMALL);
  const send = async (report: string): Promise<ProgramEnd> =>
    runSender(t, [source, '--to', NOWHERE, '--report', report]);
  failedClearly(
    t,
    await send(join(folder, 'missing', 'r.json')),
    1,
    /the folder .*missing of --report .* cannot be found/,
  );
  failedClearly(t, await send(folder), 1, /--report .* is a directory; expected the name of a file to write/);
});
