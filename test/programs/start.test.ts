import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { programModule } from '@ballast/shared/start';
import test, { type ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { programFile, runReceiver, runSender } from '../support/programs.js';

const BUNDLE = 'dist/program/main.js';
const MODULES = 'dist/cli/main.js';
const BOOKS = 'tsconfig.tsbuildinfo';
/** Later than anything that was built here, in seconds. */
const LATER = Date.now() / 1000 + 1000;

/** Makes a package of files and the times at which they were changed; returns which module its program is started from. */
async function started(t: ExecutionContext, files: Readonly<Record<string, number>>): Promise<string> {
  const folder = await temporaryFolder(t);
  for (const [name, time] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
    utimesSync(path, time, time);
  }
  return programModule(`${pathToFileURL(folder).href}/bin/program.js`).href.slice(
    pathToFileURL(folder).href.length + 1,
  );
}

test('a program starts from its bundle when that was made last', async (t) => {
  t.is(await started(t, { [MODULES]: LATER, [BOOKS]: LATER, [BUNDLE]: LATER + 1 }), BUNDLE);
});

test('a published program, which has no books of tsc, starts from its bundle', async (t) => {
  t.is(await started(t, { [MODULES]: LATER, [BUNDLE]: LATER }), BUNDLE);
});

test('a program whose modules were built after its bundle starts from the modules', async (t) => {
  t.is(await started(t, { [MODULES]: LATER, [BOOKS]: LATER + 1, [BUNDLE]: LATER }), MODULES);
});

test('a program of which what both share was built after its bundle starts from the modules', async (t) => {
  t.is(await started(t, { [MODULES]: 1, [BOOKS]: 1, [BUNDLE]: 2 }), MODULES);
});

test('a program that was never bundled starts from its modules', async (t) => {
  t.is(await started(t, { [MODULES]: LATER, [BOOKS]: LATER }), MODULES);
});

test('under npm test both programs start from their bundles', (t) => {
  if (process.env['npm_lifecycle_event'] !== 'test') {
    t.log('skipped: only npm test is sure to have bundled them');
    t.pass();
    return;
  }
  for (const bin of ['sender/bin/ballast-send.js', 'receiver/bin/ballast-receive.js'])
    t.true(programModule(pathToFileURL(programFile(bin)).href).pathname.endsWith(BUNDLE), bin);
});

test('a trace of --debug names the lines of the sources', async (t) => {
  const folder = await temporaryFolder(t);
  const sender = await runSender(t, [join(folder, 'missing'), '--to', '127.0.0.1:1', '--debug']);
  t.regex(sender.stderr, /at openForReading \(.*packages\/sender\/src\/source\/memory-source\.ts:\d+:\d+\)/);
  const receiver = await runReceiver(t, [join(folder, 'missing', 'guest.mem'), '--debug']);
  t.regex(receiver.stderr, /at .* \(.*packages\/receiver\/src\/.*\.ts:\d+:\d+\)/);
});
