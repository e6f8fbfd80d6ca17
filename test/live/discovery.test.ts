import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { link, mkdir, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Program, RECEIVER, SENDER } from '../qemu/ballast-programs.js';
import { guestTest } from '../qemu/guest-test.js';
import { parseObject } from '../qemu/json.js';
import { QmpClient } from '../qemu/qmp.js';
import { poll } from '../qemu/wait.js';
import { mount, whyNoMount } from '../support/mounts.js';

/* What is found, and what is refused, before anything is sent. No guest runs in these QEMUs: they were never started. */

const MIB = 2 ** 20;
const test = await guestTest();

class Bench {
  readonly folder: string;
  readonly #t: ExecutionContext;
  #monitors = 0;

  private constructor(t: ExecutionContext, folder: string) {
    this.#t = t;
    this.folder = folder;
  }

  static async open(t: ExecutionContext): Promise<Bench> {
    const folder = await mkdtemp(join(tmpdir(), 'ballast-discovery-'));
    t.teardown(async () => rm(folder, { recursive: true, force: true }));
    return new Bench(t, folder);
  }

  /** A backend of 64 MiB, as a file of the folder where nothing else is said. */
  backend(id: string, options = `memory-backend-file,mem-path=${join(this.folder, id)},share=on`): string[] {
    const [kind = '', ...rest] = options.split(',');
    return ['-object', [kind, `id=${id}`, 'size=64M', ...rest].join(','), '-numa', `node,memdev=${id}`];
  }

  /** @returns the path of a monitor */
  async qemu(backends: number, ...args: readonly string[]): Promise<string> {
    return this.qemuAfter('', backends, ...args);
  }

  /** With mounts of its own, after what a shell does there. */
  async qemuAfter(script: string, backends: number, ...args: readonly string[]): Promise<string> {
    const apart = ['unshare', '--mount', '--propagation', 'private', 'sh', '-e', '-c', `${script}\nexec "$@"`, 'sh'];
    const monitor = join(this.folder, `${++this.#monitors}.qmp`);
    const [program, ...before] = [...(script === '' ? [] : apart), 'setpriv'];
    const child = spawn(
      program,
      [
        ...before,
        ...['--pdeathsig', 'KILL', '--', 'qemu-system-x86_64', '-machine', 'q35,accel=tcg', '-S', '-nodefaults'],
        ...['-display', 'none', '-m', `${64 * backends}M`, '-qmp', `unix:${monitor},server=on,wait=off`, ...args],
      ],
      { stdio: 'ignore' },
    );
    const ended = once(child, 'close');
    this.#t.teardown(async () => {
      child.kill('SIGKILL');
      await ended;
    });
    const client = await poll('a monitor', 10_000, async () => QmpClient.connect(monitor).catch(() => undefined));
    client.close();
    return monitor;
  }

  program(path: string, ...args: readonly string[]): Program {
    const program = new Program(path, [...args, '--json'], { XDG_RUNTIME_DIR: this.folder });
    this.#t.teardown(async () => program.dispose());
    return program;
  }

  async forecast(monitor: string): Promise<Readonly<Record<string, unknown>>> {
    return this.program(SENDER, '--qmp', monitor, '--dry-run').event('forecast', 20_000);
  }

  async refused(monitor: string, message: RegExp, code = 'E_GUEST'): Promise<void> {
    const { status, error } = await this.program(SENDER, '--qmp', monitor, '--dry-run').ended();
    this.#t.is(status, 1);
    this.#t.is(error?.['code'], code);
    this.#t.regex(String(error?.['message']), message);
  }
}

test('memory backends are found, by ascending id', async (t) => {
  const bench = await Bench.open(t);
  const monitor = await bench.qemu(2, ...bench.backend('mem-b'), ...bench.backend('mem-a'));
  const forecast = await bench.forecast(monitor);
  t.deepEqual(forecast['memory'], [
    { id: 'mem-a', path: join(bench.folder, 'mem-a'), bytes: 64 * MIB },
    { id: 'mem-b', path: join(bench.folder, 'mem-b'), bytes: 64 * MIB },
  ]);
  t.is(forecast['running'], false);
});

test('a memory file whose name QEMU has deleted is reached through its process', async (t) => {
  if (process.getuid?.() !== 0) {
    t.pass('only root may open the files of another process');
    return;
  }
  const bench = await Bench.open(t);
  const folder = join(bench.folder, 'backing');
  await mkdir(folder);
  const monitor = await bench.qemu(1, ...bench.backend('mem', `memory-backend-file,mem-path=${folder},share=on`));
  const [memory] = (await bench.forecast(monitor))['memory'] as { path: string; bytes: number }[];
  t.regex(memory?.path ?? '', /^\/proc\/\d+\/map_files\//);
  t.is(memory?.bytes, 64 * MIB);
});

test("a report that would be written over the guest's memory is refused before anything is sent", async (t) => {
  const bench = await Bench.open(t);
  const monitor = await bench.qemu(1, ...bench.backend('mem'));
  const alias = join(bench.folder, 'report.json');
  await link(join(bench.folder, 'mem'), alias);
  // Nobody listens there.
  const sender = bench.program(SENDER, '--qmp', monitor, '--to', '127.0.0.1:1', '--report', alias);
  const { status, error } = await sender.ended();
  t.is(status, 2);
  t.regex(String(error?.['message']), /report\.json is the memory file itself/);
});

test('memory that is private to QEMU is refused', async (t) => {
  const bench = await Bench.open(t);
  const options = `memory-backend-file,mem-path=${join(bench.folder, 'mem')},share=off`;
  await bench.refused(await bench.qemu(1, ...bench.backend('mem', options)), /mem is private to QEMU; start QEMU with/);
});

test('memory that is no file is refused', async (t) => {
  const bench = await Bench.open(t);
  const monitor = await bench.qemu(1, ...bench.backend('mem', 'memory-backend-memfd,share=on'));
  await bench.refused(monitor, /mem is not a file/);
});

test('a guest without memory backends is refused', async (t) => {
  const bench = await Bench.open(t);
  await bench.refused(await bench.qemu(1), /private to QEMU|has no memory backend/);
});

test('a memory file that was replaced after QEMU had opened it is refused', async (t) => {
  const bench = await Bench.open(t);
  const monitor = await bench.qemu(1, ...bench.backend('mem'));
  await rename(join(bench.folder, 'mem'), join(bench.folder, 'old'));
  await writeFile(join(bench.folder, 'mem'), '');
  await truncate(join(bench.folder, 'mem'), 64 * MIB);
  await bench.refused(monitor, /maps|is not the file that QEMU maps/);
});

test('a memory file of the same name and inode number on another mount, where QEMU has mounts of its own, is refused', async (t) => {
  const missing = await whyNoMount('tmpfs', 'size=1m');
  if (missing !== undefined) {
    t.pass(missing);
    return;
  }
  const bench = await Bench.open(t);
  const folder = join(bench.folder, 'memory');
  await mkdir(folder);
  const path = join(folder, 'mem');
  await mount(t, folder, 'tmpfs', 'size=100m');
  await writeFile(path, '');
  await truncate(path, 64 * MIB);
  const script = `mount -t tmpfs ballast-test ${folder}\ntruncate -s 64M ${path}`;
  const backend = bench.backend('mem', `memory-backend-file,mem-path=${path},share=on`);
  await bench.refused(await bench.qemuAfter(script, 1, ...backend), /another file for QEMU .* on another filesystem/);
});

test('a QEMU that waits for a guest has none to move', async (t) => {
  const bench = await Bench.open(t);
  const waiting = await bench.qemu(1, ...bench.backend('mem'), '-incoming', 'defer');
  await bench.refused(waiting, /is in state 'inmigrate'; expected one that is running or paused/);
});

test('a monitor that nobody listens at is named', async (t) => {
  const bench = await Bench.open(t);
  await bench.refused(join(bench.folder, 'no.qmp'), /there is no monitor socket/, 'E_QMP');
});

test('a monitor that another program holds is named', async (t) => {
  t.timeout(240_000);
  const bench = await Bench.open(t);
  const monitor = await bench.qemu(1, ...bench.backend('mem'));
  const holder = await QmpClient.connect(monitor);
  await bench.refused(monitor, /serves one client at a time/, 'E_QMP');
  holder.close();
});

test('a device that writes memory behind QEMU is refused', async (t) => {
  // No test machine has one: a monitor that says what QEMU's does with `-device vfio-pci,id=gpu`.
  const bench = await Bench.open(t);
  const answers: Readonly<Record<string, unknown>> = {
    qmp_capabilities: {},
    'query-status': { status: 'running', running: true, singlestep: false },
    'query-migrate': {},
    'qom-list': [
      { name: 'type', type: 'string' },
      { name: 'gpu', type: 'child<vfio-pci>' },
    ],
  };
  const monitor = join(bench.folder, 'vfio.qmp');
  const server = createServer((socket) => {
    socket.write(`${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\n`);
    createInterface({ input: socket }).on('line', (line) => {
      const { execute, id } = parseObject(line);
      socket.write(`${JSON.stringify({ return: answers[String(execute)], id })}\n`);
    });
  });
  server.listen(monitor);
  t.teardown(() => {
    server.close();
  });
  await bench.refused(monitor, /the device 'gpu' \(vfio-pci\), which writes its memory behind QEMU's back/);
});

for (const { what, backends, ids, code } of [
  { what: 'more backends', backends: 2, ids: ['mem-a', 'mem-b'], code: /1 memory backend\(s\) and the waiting one 2/ },
  { what: 'a backend of another size', backends: 2, ids: ['mem'], code: /start both guests with the same memory size/ },
] as const) {
  test(`a waiting guest with ${what} is refused`, async (t) => {
    const bench = await Bench.open(t);
    const source = await bench.qemu(1, ...bench.backend('source'));
    const args = ids.flatMap((id) => {
      const backend = bench.backend(id);
      return ids.length === 1 ? backend.map((word) => word.replace('size=64M', 'size=128M')) : backend;
    });
    const waiting = await bench.qemu(backends, ...args, '-incoming', 'defer');
    const receiver = bench.program(RECEIVER, '--qmp', waiting, '--listen', '127.0.0.1:0');
    const { port } = await receiver.event('listening', 20_000);
    const { status, error } = await bench.program(SENDER, '--qmp', source, '--to', `127.0.0.1:${String(port)}`).ended();
    t.is(status, 1);
    t.is(error?.['code'], 'E_MISMATCH');
    t.regex(String(error?.['message']), code);
    t.is((await receiver.ended()).status, 1);
  });
}

test('a receiver of files refuses a guest, and a receiver of a guest refuses files', async (t) => {
  const bench = await Bench.open(t);
  const source = await bench.qemu(1, ...bench.backend('source'));
  const files = bench.program(RECEIVER, join(bench.folder, 'copy.mem'), '--listen', '127.0.0.1:0');
  const { port } = await files.event('listening', 20_000);
  const live = await bench.program(SENDER, '--qmp', source, '--to', `127.0.0.1:${String(port)}`).ended();
  t.regex(String(live.error?.['message']), /give the receiver --qmp/);

  const waiting = await bench.qemu(1, ...bench.backend('waiting'), '-incoming', 'defer');
  const guest = bench.program(RECEIVER, '--qmp', waiting, '--listen', '127.0.0.1:0');
  const listening = await guest.event('listening', 20_000);
  const paused = await bench
    .program(SENDER, join(bench.folder, 'source'), '--to', `127.0.0.1:${String(listening['port'])}`)
    .ended();
  t.regex(String(paused.error?.['message']), /give the sender --qmp/);
});

for (const [what, args, message] of [
  ['a file name', ['guest.mem'], /leave out the file names/],
  ['a balloon map', ['--balloon', 'bitmap:x'], /out of date/],
  ['another strategy', ['--strategy', 'skip'], /knows only bitmap/],
  ['no destination', [], /not said where to/],
] as const) {
  test(`--qmp with ${what} is wrong usage`, async (t) => {
    const bench = await Bench.open(t);
    const { status, error } = await bench.program(SENDER, ...args, '--qmp', '/nowhere').ended();
    t.is(status, 2);
    t.regex(String(error?.['message']), message);
  });
}

test('an option of a live move without a guest is wrong usage', async (t) => {
  const bench = await Bench.open(t);
  const { status, error } = await bench.program(SENDER, 'x', '--to', '127.0.0.1:1', '--max-rounds', '3').ended();
  t.is(status, 2);
  t.regex(String(error?.['message']), /--max-rounds speaks of a running guest/);
});
