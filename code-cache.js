import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/*
 * Makes V8's code caches of the bundles, with which the programs start faster: two transfers over loopback, in which V8
 * compiles what a transfer needs; one of them with channels, for their threads.
 *
 *     node code-cache.js [FOLDER]    of the programs in FOLDER instead of those in packages
 */
const programs = process.argv[2] ?? 'packages';
const recorder = join(import.meta.dirname, 'code-cache-recorder.cjs');

let folder;
try {
  folder = mkdtempSync(join(tmpdir(), 'ballast-code-cache-'));
  writeFileSync(join(folder, 'guest.mem'), randomBytes(16 << 20));
  await transfer();
  await transfer('--channels', '2', '--compress', 'lz4');
} catch (error) {
  console.log(`no code cache, without which the programs start more slowly: ${error.message}`);
} finally {
  if (folder !== undefined) rmSync(folder, { recursive: true });
}

/** @throws Error with the first line of what the program that failed first has said about it */
async function transfer(...options) {
  const [memory, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  const running = [];
  let failure;
  const start = (program, args) => {
    // A cache of V8 with other flags fits nothing else.
    const env = { ...process.env, NODE_OPTIONS: undefined, NODE_V8_COVERAGE: undefined };
    const child = spawn(process.execPath, ['--require', recorder, join(programs, program), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 120_000,
      env,
    });
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
    const ended = new Promise((resolve) => child.on('close', resolve).on('error', resolve)).then((status) => {
      if (status === 0) return;
      failure ??= errors.split('\n', 1)[0] || `a transfer ended with ${status}`;
      // The other one would wait for it.
      for (const { child } of running) child.kill();
    });
    running.push({ child, ended });
    return child;
  };
  const receiver = start('receiver/bin/ballast-receive.js', [copy, '--force', '--listen', '127.0.0.1:0', '--json']);
  for await (const line of createInterface(receiver.stdout)) {
    const { event, host, port } = JSON.parse(line);
    if (event === 'listening')
      start('sender/bin/ballast-send.js', [memory, '--to', `${host}:${port}`, '--retry', '0', '--quiet', ...options]);
  }
  for (const { ended } of running) await ended;
  if (failure !== undefined) throw new Error(failure);
}
