import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { createOutput, type Output } from '@ballast/shared/cli';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { runSample, startSample } from './run-sample.js';

/** An output into memory, and what was written there. */
function recorded(options: { json?: boolean; quiet?: boolean }): {
  output: Output;
  written: () => Promise<{ stdout: string; stderr: string }>;
} {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  return {
    output: createOutput({ program: 'sample', json: false, quiet: false, debug: false, ...options, stdout, stderr }),
    async written() {
      stdout.end();
      stderr.end();
      return { stdout: await text(stdout), stderr: await text(stderr) };
    },
  };
}

test('without --json, stdout has what was asked for and stderr the rest', async (t) => {
  t.deepEqual(await runSample('talk'), {
    status: 0,
    stdout: 'the answer\n',
    stderr: [
      'a note',
      'of two lines',
      'send: 25.0 %, 1.00 KiB of 4.00 KiB, 10 B on the wire',
      'verify, round 2: 0 %, 0 B of 4.00 KiB, 30 B on the wire',
      'warning: a \\x1b[31mwarning',
      'sent',
      'root 1234',
      '',
    ].join('\n'),
  });
});

test('with --json, stdout has events and nothing else; the kind comes first, and nothing a terminal would obey', async (t) => {
  const { status, stdout, stderr } = await runSample('talk', '--json');
  t.is(status, 0);
  t.is(stdout, '{"event":"said","key":"value","hidden":"a\\u202eb\\u009b"}\n');
  t.deepEqual(JSON.parse(stdout), { event: 'said', key: 'value', hidden: 'a\u202eb\x9b' });
  t.is(stderr, 'warning: a \\x1b[31mwarning\n');
});

test('with --quiet, what was asked for and errors are all that is left', async (t) => {
  t.deepEqual(await runSample('talk', '--quiet'), { status: 0, stdout: 'the answer\n', stderr: '' });
  t.is((await runSample('refuse', '--quiet')).stderr, 'sample: it is there \\x1b[31malready\n');
});

test('events reach a slow reader of a pipe whole before the program ends', async (t) => {
  const child = startSample(['count', '--count', '500', '--json']);
  // More than a pipe holds is written before the first byte is read.
  await sleep(500);
  const lines = (await text(child.stdout)).trimEnd().split('\n');
  t.deepEqual(
    lines.map((line) => (JSON.parse(line) as { n?: number }).n),
    [...Array.from({ length: 500 }, (_, n) => n), undefined],
  );
  t.is(child.exitCode ?? (await once(child, 'close'))[0], 0);
});

test('a reader that does not keep up loses progress, and nothing else', async (t) => {
  const child = startSample(['count', '--count', '20000', '--json']);
  await sleep(500);
  const lines = (await text(child.stdout)).trimEnd().split('\n');
  t.true(lines.length > 500 && lines.length < 10_000, `${lines.length} lines`);
  t.is(lines.at(-1), '{"event":"done"}');
});

test('a reader that leaves early does not make the program fail', async (t) => {
  const child = startSample(['count', '--count', '5000', '--json']);
  const stderr = text(child.stderr);
  await once(child.stdout, 'data');
  child.stdout.destroy();
  await once(child, 'close');
  t.is(child.exitCode, 0);
  t.is(await stderr, '');
});

test('a stdout that cannot be written is a failure, but EPIPE is none', async (t) => {
  for (const [code, isFailure] of [
    ['ENOSPC', true],
    ['EPIPE', false],
    ['EIO', true],
  ] as const) {
    const stdout = new Writable({
      write(_chunk, _encoding, done) {
        done(Object.assign(new Error(code), { code }));
      },
    });
    const output = createOutput({
      program: 'sample',
      json: true,
      quiet: false,
      debug: false,
      stdout,
      stderr: new PassThrough(),
    });
    output.event({ event: 'one' });
    await output.flush();
    output.event({ event: 'two' });
    await output.flush();
    t.is(output.failure?.code, isFailure ? ErrorCode.WRITE : undefined);
  }
});

test('a file that takes only the beginning of what is said is a failure', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ballast-output-'));
  t.teardown(async () => rm(folder, { recursive: true }));
  const path = join(folder, 'answer');
  await writeFile(path, 'x'.repeat(4090));
  // The limit, 8 times 512 bytes, cuts the last write short, as a full disk does.
  const child = startSample(['talk', '--quiet'], ['sh', '-c', 'ulimit -f 8; exec "$@" >>"$0"', path]);
  const [stderr] = await Promise.all([text(child.stderr), once(child, 'close')]);
  t.true((await readFile(path, 'utf8')).endsWith('xthe an'));
  t.is(child.exitCode, 1);
  t.regex(stderr, /^sample: the program's stdout cannot be written \(EFBIG\)/);
});

test('an error is an event and a sentence', async (t) => {
  const { output, written } = recorded({ json: true });
  output.error(new BallastError(ErrorCode.CONNECT, 'nobody listens'));
  t.deepEqual(await written(), {
    stdout: '{"event":"error","code":"E_CONNECT","message":"nobody listens"}\n',
    stderr: 'sample: nobody listens\n',
  });
});

test('a log has a line for each phase, and between them one each five seconds', async (t) => {
  const { output, written } = recorded({});
  for (const phase of ['map', 'send']) {
    for (let n = 0; n < 100; n++) output.progress({ phase, doneBytes: n, wireBytes: 0 });
  }
  const { stdout, stderr } = await written();
  t.is(stdout, '');
  t.is(stderr, 'map: 0 B, 0 B on the wire\nsend: 0 B, 0 B on the wire\n');
});

test('big integers become strings, which JSON can carry', async (t) => {
  const { output, written } = recorded({ json: true });
  output.event({ event: 'x', size: 2n ** 60n });
  t.is((await written()).stdout, '{"event":"x","size":"1152921504606846976"}\n');
});
