import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachePath, programModule } from '@ballast/shared/start';
import test, { type ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { programFile, receiverProgram, runReceiver, runSender, type ProgramOptions } from '../support/programs.js';

const BUNDLE = 'dist/program/main.bundle.cjs';
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
  return relative(folder, programModule(join(folder, 'bin/program.js')));
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
    t.true(programModule(programFile(bin)).endsWith(BUNDLE), bin);
});

test('a trace of --debug names the lines of the sources', async (t) => {
  const folder = await temporaryFolder(t);
  const sender = await runSender(t, [join(folder, 'missing'), '--to', '127.0.0.1:1', '--debug']);
  t.regex(sender.stderr, /at openForReading \(.*packages\/sender\/src\/source\/memory-source\.ts:\d+:\d+\)/);
  const receiver = await runReceiver(t, [join(folder, 'missing', 'guest.mem'), '--debug']);
  t.regex(receiver.stderr, /at .* \(.*packages\/receiver\/src\/.*\.ts:\d+:\d+\)/);
});

/** The workspace, seen from where this module is compiled to. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const MEMORY: Layout = [
  { fill: Fill.data, pages: 700 },
  { fill: Fill.hole, pages: 300 },
];

/** Loaded before a program: says for each of its threads whether it had a code cache for V8, and whether V8 took it. */
const PROBE = String.raw`
  const vm = require('node:vm');
  vm.Script = class extends vm.Script {
    constructor(source, options) {
      super(source, options);
      const fate = options.cachedData === undefined ? 'none' : this.cachedDataRejected ? 'refused' : 'taken';
      require('node:fs').writeSync(2, 'cache ' + fate + '\n');
    }
  };`;

/** What became of the code cache of each thread of a program that was started with {@link PROBE}. */
function cachesOf({ stderr }: { readonly stderr: string }): string[] {
  return [...stderr.matchAll(/^cache (\w+)$/gm)].map(([, fate = '']) => fate);
}

interface Copies {
  /** The folder that both packages are in. */
  readonly packages: string;
  /** The bundle of the sender's main thread. */
  readonly bundle: string;
  /** For starting their programs, which say what became of their code caches. */
  readonly options: ProgramOptions;
}

/** Copies of both packages as `npm run build` leaves them, with code caches that this Node has made; undefined where it has not run. */
async function copies(t: ExecutionContext, makeCaches = makeCodeCaches): Promise<Copies | undefined> {
  if (!programModule(programFile('sender/bin/ballast-send.js')).endsWith(BUNDLE)) {
    t.log('skipped: the programs are not bundled; npm run build does it');
    t.pass();
    return undefined;
  }
  const packages = await temporaryFolder(t);
  for (const name of ['sender', 'receiver']) {
    for (const part of ['package.json', 'bin', 'dist/program'])
      cpSync(join(ROOT, 'packages', name, part), join(packages, name, part), {
        recursive: true,
        filter: (path) => !path.endsWith('.cache'),
      });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(packages, 'node_modules'));
  makeCaches(t, packages);
  const probe = join(packages, 'probe.cjs');
  writeFileSync(probe, PROBE);
  return {
    packages,
    bundle: join(packages, 'sender', BUNDLE),
    // While coverage is counted no cache is used.
    options: { packages, env: { ...process.env, NODE_V8_COVERAGE: undefined, NODE_OPTIONS: `--require ${probe}` } },
  };
}

function makeCodeCaches(t: ExecutionContext, packages: string): void {
  const { status, stdout, stderr } = runCodeCache(packages, {});
  t.is(`${stdout}${stderr}`, '');
  t.is(status, 0);
}

function runCodeCache(packages: string, env: NodeJS.ProcessEnv): SpawnSyncReturns<string> {
  const program = join(ROOT, 'code-cache.js');
  return spawnSync(process.execPath, [program, packages], { encoding: 'utf8', env: { ...process.env, ...env } });
}

/** Names of all files in a folder. */
function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
}

/** Moves a memory with two channels, and asserts that it arrived; returns what became of the code caches of both sides. */
async function moved(t: ExecutionContext, { options }: Copies): Promise<{ sender: string[]; receiver: string[] }> {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, MEMORY);
  const { receiver, to } = await receiverProgram(t, [copy], options);
  const sent = await runSender(t, [source, '--to', to, '--channels', '2'], options);
  t.is(sent.status, 0, sent.stderr);
  const received = await receiver.ended;
  t.is(received.status, 0, received.stderr);
  t.is(firstWrongPage(copy, MEMORY), undefined);
  return { sender: cachesOf(sent), receiver: cachesOf(received) };
}

test('both programs and the threads of their channels start from the code caches that the build made', async (t) => {
  const programs = await copies(t);
  if (programs === undefined) return;
  const all = ['taken', 'taken', 'taken'];
  t.deepEqual(await moved(t, programs), { sender: all, receiver: all });
});

test('a program without a code cache starts as it did, and makes none', async (t) => {
  const programs = await copies(t, () => undefined);
  if (programs === undefined) return;
  const before = filesIn(programs.packages);
  const all = ['none', 'none', 'none'];
  t.deepEqual(await moved(t, programs), { sender: all, receiver: all });
  t.deepEqual(filesIn(programs.packages), before);
});

test('a code cache that is cut off or damaged is not used', async (t) => {
  const programs = await copies(t);
  if (programs === undefined) return;
  const path = cachePath(programs.bundle);
  const whole = readFileSync(path);
  const damaged = (at: number): Buffer => {
    const bytes = Buffer.from(whole);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 0x55, at);
    return bytes;
  };
  const cut = [0, 3, 4, 100, whole.length >> 1, whole.length - 1].map((length) => whole.subarray(0, length));
  const places = Array.from({ length: 12 }, (_, n) => Math.floor((n / 11) * (whole.length - 1)));
  for (const bytes of [...cut, ...places.map(damaged)]) {
    writeFileSync(path, bytes);
    const end = await runSender(t, ['--version'], programs.options);
    t.deepEqual([end.status, end.stdout, cachesOf(end)], [0, '0.1.0\n', ['none']], end.stderr);
  }
  writeFileSync(path, whole);
  t.deepEqual(cachesOf(await runSender(t, ['--version'], programs.options)), ['taken']);
});

test('a code cache that cannot be read is not used', async (t) => {
  const programs = await copies(t);
  if (programs === undefined) return;
  rmSync(cachePath(programs.bundle));
  mkdirSync(cachePath(programs.bundle));
  const end = await runSender(t, ['--version'], programs.options);
  t.deepEqual([end.status, cachesOf(end)], [0, ['none']], end.stderr);
});

test('the code cache of another bundle is not used, even if that is as long', async (t) => {
  const programs = await copies(t);
  if (programs === undefined) return;
  const text = readFileSync(programs.bundle, 'utf8');
  const other = text.replace('Sends a virtual machine', 'SENDS a virtual machine');
  t.not(other, text);
  writeFileSync(programs.bundle, other);
  const end = await runSender(t, ['--help'], programs.options);
  t.deepEqual([end.status, cachesOf(end)], [0, ['none']], end.stderr);
  t.regex(end.stdout, /SENDS a virtual machine/);
});

test('a code cache of V8 with other flags is not used', async (t) => {
  const programs = await copies(t);
  if (programs === undefined) return;
  const { env } = programs.options;
  const options = { ...programs.options, env: { ...env, NODE_OPTIONS: `${env?.['NODE_OPTIONS'] ?? ''} --jitless` } };
  const all = ['refused', 'refused', 'refused'];
  t.deepEqual(await moved(t, { ...programs, options }), { sender: all, receiver: all });
});

test('where the build cannot make code caches, it says so in a line and the programs start without', async (t) => {
  let said: SpawnSyncReturns<string> | undefined;
  const programs = await copies(t, (_, packages) => {
    said = runCodeCache(packages, { TMPDIR: join(packages, 'missing') });
  });
  if (programs === undefined) return;
  t.is(said?.status, 0);
  t.regex(said?.stdout ?? '', /^no code cache, without which the programs start more slowly: .*ENOENT.*\n$/);
  const end = await runSender(t, ['--version'], programs.options);
  t.deepEqual([end.status, cachesOf(end)], [0, ['none']], end.stderr);
});
