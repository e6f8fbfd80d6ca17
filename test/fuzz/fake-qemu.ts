import { appendFileSync, fstatSync, openSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { mapShared } from '@ballast/shared/memory';

/**
 * A process that stands in for a QEMU, one with `-incoming defer` or one whose guest runs and writes memory: it maps memory
 * files as QEMU does, and answers on a monitor as QEMU 7.2 was seen to. Real enough for thousands of moves; what QEMU itself
 * does is tested with QEMU.
 *
 *     fake-qemu.js MONITOR LOG inmigrate|running FAULT FILE…
 *
 * LOG gets a line for each thing that happens to the guest. FAULT is "COMMAND:HOW": refuse, die, hang-up or nonsense when
 * this command comes; or "none".
 */
const [monitor = '', log = '', role = 'inmigrate', fault = 'none', ...files] = process.argv.slice(2);
const [faultyCommand, how] = fault.split(':');
const memory = files.map((path) => {
  const fd = openSync(path, 'r+');
  const { bytes } = mapShared(fd, 0, fstatSync(fd).size, true);
  return { path, bytes };
});

/** How a stream of device state must end to be taken. */
const STATE_END = 'end of state';
let status = role;
let migration = 'none';
let bandwidth = 128 << 20;
const capabilities = new Map(['x-ignore-shared', 'late-block-activate', 'multifd'].map((name) => [name, false]));
let writes = 0;

/** A guest that runs writes memory. */
function runOn(): void {
  const { bytes } = memory[writes % memory.length] ?? {};
  bytes?.writeUInt32LE(++writes, (writes * 7919 * 4096) % bytes.length);
}

function note(line: string): void {
  appendFileSync(log, `${line}\n`);
}

function takeStateAt(path: string): void {
  migration = 'setup';
  const server = createServer((socket) => {
    const pieces: Buffer[] = [];
    migration = 'active';
    server.close();
    socket.on('data', (piece) => pieces.push(piece));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const isWhole = Buffer.concat(pieces).toString('latin1').endsWith(STATE_END);
      migration = isWhole ? 'completed' : 'failed';
      if (isWhole) status = 'paused';
      note(migration);
    });
  });
  server.listen(path);
}

function giveStateAt(path: string): void {
  migration = 'active';
  const socket = createConnection(path, () => socket.end(Buffer.from(`some state, and the ${STATE_END}`)));
  socket.on('error', () => undefined);
  socket.on('close', (hadError) => {
    migration = hadError ? 'failed' : 'completed';
    if (!hadError) status = 'postmigrate';
  });
  socket.resume();
}

const hex = (bytes: number): string => `0x${bytes.toString(16).padStart(16, '0')}`;

function answer(command: string, args: Readonly<Record<string, unknown>>): unknown {
  switch (command) {
    case 'query-status':
      if (status === 'running') runOn();
      return { status, running: status === 'running' };
    case 'query-migrate':
      return migration === 'none' ? {} : { status: migration };
    case 'query-memdev':
      return memory.map(({ bytes }, index) => ({ id: `mem${index}`, size: bytes.length, share: true }));
    case 'x-query-ramblock':
      return {
        'human-readable-text': ['Block Name PSize Offset Used Total']
          .concat(memory.map(({ bytes }, n) => `mem${n}  4 KiB  ${hex(0)} ${hex(bytes.length)} ${hex(bytes.length)}`))
          .join('\n'),
      };
    case 'qom-get':
      return memory[Number(String(args['path']).replace('/objects/mem', ''))]?.path;
    case 'query-migrate-capabilities':
      return [...capabilities].map(([capability, state]) => ({ capability, state }));
    case 'migrate-set-capabilities':
      for (const { capability, state } of args['capabilities'] as { capability: string; state: boolean }[])
        capabilities.set(capability, state);
      note(`set ${[...capabilities.values()].filter((state) => state).length}`);
      return {};
    case 'query-migrate-parameters':
      return { 'max-bandwidth': bandwidth };
    case 'migrate-set-parameters':
      bandwidth = Number(args['max-bandwidth']);
      return {};
    case 'qom-list':
      return [];
    case 'migrate':
      note('migrate');
      giveStateAt(String(args['uri']).replace('unix:', ''));
      return {};
    case 'stop':
      if (status === 'running') {
        status = 'paused';
        note('stop');
      }
      return {};
    case 'migrate-incoming':
      note('migrate-incoming');
      takeStateAt(String(args['uri']).replace('unix:', ''));
      return {};
    case 'cont':
      status = 'running';
      note('cont');
      return {};
    default:
      return {};
  }
}

function serve(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.write(`${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\n`);
  const lines = createInterface({ input: socket });
  lines.on('error', () => undefined);
  lines.on('line', (line) => {
    const {
      execute,
      arguments: args,
      id,
    } = JSON.parse(line) as {
      execute: string;
      arguments: Record<string, unknown>;
      id: number;
    };
    if (execute === faultyCommand) {
      if (how === 'die') process.exit(1);
      if (how === 'hang-up') socket.destroy();
      else if (how === 'nonsense') socket.write(`{"return": [[[${'x'.repeat(1000)}\n`);
      else socket.write(`${JSON.stringify({ id, error: { class: 'GenericError', desc: 'no' } })}\n`);
      return;
    }
    if (execute === 'quit') process.exit(0);
    socket.write(`${JSON.stringify({ timestamp: {}, event: 'STOP' })}\n`);
    socket.write(`${JSON.stringify({ return: answer(execute, args), id })}\n`);
  });
}

createServer(serve).listen(monitor, () => {
  console.log('ready');
});
// Whoever started it has ended: so does it.
process.stdin.on('end', () => process.exit(0)).resume();
