import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { runSample, startSample } from './run-sample.js';

const USAGE: readonly { args: string[]; says: string }[] = [
  { args: ['--colour', 'pink'], says: "--colour cannot be 'pink'; expected red, green or blue" },
  {
    args: ['--timeout', 'soon'],
    says: "--timeout: 'soon' is no time; expected seconds, such as 30 or 0.5, or a number with ms, s, min or h, such as 5min",
  },
  { args: ['--count', 'two'], says: "--count 'two': expected a whole number" },
  { args: ['--count'], says: 'option --count needs a value: <N>; see sample --help' },
  { args: ['--colours', 'red'], says: "unknown option '--colours'; did you mean --colour?" },
  { args: ['--zzz'], says: "unknown option '--zzz'; see sample --help" },
  { args: ['--\x1b[31m'], says: "unknown option '--\\x1b[31m'; see sample --help" },
  {
    args: ['--count', '2', 'show', 'a', '--count', '3'],
    says: '--count was given before show and behind it, where only one could count; give it behind show only',
  },
  { args: ['show', ''], says: 'the name of a file is empty; look for a variable that is not set' },
  { args: ['--word', '', 'count'], says: 'what --word says is empty; look for a variable that is not set' },
  { args: ['show'], says: "missing required argument 'FILE'; see sample show --help" },
  {
    args: ['show', 'a', 'b'],
    says: "too many arguments for 'show': expected 1 argument but got 2; see sample show --help",
  },
  { args: [], says: 'it is not said what to do; expected WHAT' },
];

for (const { args, says } of USAGE) {
  test(`wrong usage ends with 2 and one sentence: ${JSON.stringify(args)}`, async (t) => {
    t.deepEqual(await runSample(...args), { status: 2, stdout: '', stderr: `sample: ${says}\n` });
  });
}

test('wrong usage with --json is an event, too', async (t) => {
  const { status, stdout, stderr } = await runSample('--count', 'two', '--json');
  const message = "--count 'two': expected a whole number";
  t.is(status, 2);
  t.is(stdout, `${JSON.stringify({ event: 'error', code: 'E_USAGE', message })}\n`);
  t.is(stderr, `sample: ${message}\n`);
});

test('--help and --version end with 0 and print to stdout', async (t) => {
  t.deepEqual(await runSample('--version'), { status: 0, stdout: '1.2.3\n', stderr: '' });
  const help = await runSample('--help');
  t.is(help.status, 0);
  t.is(help.stderr, '');
  for (const option of ['--json', '--quiet', '--debug']) t.true(help.stdout.includes(option));
  t.true((await runSample('show', '--help')).stdout.includes('--json'));
});

test('a typed failure ends with 1 and its sentence, safe for a terminal', async (t) => {
  t.deepEqual(await runSample('refuse'), { status: 1, stdout: '', stderr: 'sample: it is there \\x1b[31malready\n' });
});

test('--debug adds stack and causes', async (t) => {
  const { status, stderr } = await runSample('refuse', '--debug');
  t.is(status, 1);
  t.regex(stderr, /^sample: it is there/);
  t.regex(stderr, /^ +at .*sample-program/m);
  t.regex(stderr, /caused by: Error: the cause/);
});

test('an unexpected exception ends with 1, without a stack', async (t) => {
  for (const [what, message] of [
    ['defect', 'not a function'],
    ['late', 'thrown by a timer'],
  ] as const) {
    const { status, stderr, stdout } = await runSample(what, '--json');
    t.is(status, 1);
    t.is(
      stderr,
      `sample: unexpected failure inside ballast: ${message}; run again with --debug and report the trace\n`,
    );
    t.like(JSON.parse(stdout) as object, { event: 'error', code: 'E_INTERNAL' });
  }
});

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  test(`${signal} aborts the action and ends with ${status}`, async (t) => {
    const child = startSample(['wait', '--json']);
    const stderr = text(child.stderr);
    let stdout = '';
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    await once(child.stdout, 'data');
    child.kill(signal);
    await once(child, 'close');
    t.is(child.exitCode, status);
    t.is(await stderr, `sample: ended by ${signal} before the work was complete\n`);
    t.like(JSON.parse(stdout.split('\n')[1] ?? '') as object, { event: 'error', code: 'E_ABORTED' });
  });
}

test('a second signal ends at once what does not end by itself', async (t) => {
  const child = startSample(['stubborn', '--json']);
  await once(child.stdout, 'data');
  child.kill('SIGINT');
  // Two pending signals of one number are one: wait until the first was taken.
  const again = setInterval(() => child.kill('SIGINT'), 50);
  await once(child, 'close');
  clearInterval(again);
  t.is(child.exitCode, 130);
});
