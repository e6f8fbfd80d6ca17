import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { basename, dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Child, findProgram } from './child.js';
import type { Measurement } from './contender.js';
import type { MemoryFile } from './memory-file.js';

/** A program that does what Ballast does, or the limit that both have. */
export interface Peer {
  readonly name: string;
  readonly what: string;
  readonly programs: readonly string[];
  /** True where no file is left that could be compared with the source. */
  readonly leavesNothing?: boolean;
  run(source: MemoryFile, destination: string): Promise<Measurement>;
}

const HOST = '127.0.0.1';
const LISTEN_MS = 5000;

/** Why a peer cannot be run here, or undefined. */
export function whyMissing({ programs }: Peer): string | undefined {
  const absent = programs.filter((program) => findProgram(program) === undefined);
  return absent.length === 0 ? undefined : `${absent.join(' and ')} not found in PATH`;
}

/**
 * nbdcopy onto nbdkit: the receiving host offers an empty sparse file, the sending host copies its file there. Holes of the
 * source are not read, but each is announced as zeros to the destination.
 */
export const nbdcopy: Peer = nbdcopyPeer('nbdcopy', []);

/** The same by a user who knows that the destination is new: nothing is sent for holes. */
export const nbdcopyOntoZeros: Peer = nbdcopyPeer('nbdcopy, destination known zero', ['--destination-is-zero']);

function nbdcopyPeer(name: string, options: readonly string[]): Peer {
  return {
    name,
    what: ['nbdkit -p PORT file DST; nbdcopy', ...options, 'SRC nbd://127.0.0.1:PORT'].join(' '),
    programs: ['nbdkit', 'nbdcopy'],
    async run(source, destination) {
      makeSparse(destination, source.size);
      const port = await freePort();
      const server = start('nbdkit', ['-f', '-i', HOST, '-p', `${port}`, 'file', destination]);
      return await withServer(server, port, async () => {
        const { seconds } = await timed('nbdcopy', [...options, source.path, `nbd://${HOST}:${port}`]);
        return { seconds };
      });
    },
  };
}

/** rsync to an rsync daemon: no shell and no encryption between; the checksum of the whole file is part of what it does. */
export const rsync: Peer = {
  name: 'rsync --sparse',
  what: 'rsync --daemon --port PORT; rsync --sparse --whole-file SRC rsync://127.0.0.1:PORT/memory/DST',
  programs: ['rsync'],
  async run(source, destination) {
    const folder = dirname(destination);
    const config = `${destination}.rsyncd.conf`;
    await writeFile(config, rsyncConfig(folder), { mode: 0o600 });
    const port = await freePort();
    const listen = ['--no-detach', `--config=${config}`, `--address=${HOST}`, `--port=${port}`];
    const server = start('rsync', ['--daemon', ...listen]);
    return await withServer(server, port, async () => {
      const options = ['--sparse', '--whole-file', '--stats', '--no-human-readable'];
      const target = `rsync://${HOST}:${port}/memory/${basename(destination)}`;
      const { seconds, lines } = await timed('rsync', [...options, source.path, target]);
      const sent = lines
        .map((line) => /^Total bytes sent: (\d+)$/.exec(line)?.[1])
        .find((found) => found !== undefined);
      return { seconds, wireBytes: sent === undefined ? undefined : Number(sent) };
    });
  },
};

function rsyncConfig(folder: string): string {
  // As root the daemon would become nobody, who may not write into the private folder.
  const user = process.getuid?.() === 0 ? 'uid = 0\ngid = 0\n' : '';
  return `${user}use chroot = no\nhosts allow = ${HOST}\n[memory]\npath = ${folder}\nread only = no\n`;
}

/**
 * iperf3, one stream: the limit, for it moves bytes that come from nowhere and go nowhere. Its time is the time in which
 * the data of the file, and nothing else, would have crossed at the rate that it found.
 */
export const iperf3: Peer = {
  name: 'iperf3, one stream',
  what: 'iperf3 -s -p PORT; iperf3 -c 127.0.0.1 -p PORT -t 3 -O 1 --json',
  programs: ['iperf3'],
  leavesNothing: true,
  async run(source) {
    const port = await freePort();
    const server = start('iperf3', ['-s', '-1', '-B', HOST, '-p', `${port}`, '--forceflush']);
    try {
      // A probe would be taken for a client: its own word is the only sign that it listens.
      await server.waitForLine((line) => (line.startsWith('Server listening') ? true : undefined), 'that it listens');
      const { lines } = await timed('iperf3', ['-c', HOST, '-p', `${port}`, '-t', '3', '-O', '1', '--json']);
      const rate = receivedBytesPerSecond(lines.join('\n'));
      return { seconds: source.dataBytes / rate };
    } finally {
      await server.end();
    }
  },
};

function receivedBytesPerSecond(report: string): number {
  const { end } = JSON.parse(report) as { end?: { sum_received?: { bits_per_second?: number } } };
  const bits = end?.sum_received?.bits_per_second;
  if (bits === undefined || bits <= 0) throw new Error('iperf3 reports no rate (end.sum_received.bits_per_second)');
  return bits / 8;
}

/** All peers, the limit last. */
export const PEERS: readonly Peer[] = [nbdcopy, nbdcopyOntoZeros, rsync, iperf3];

function makeSparse(path: string, size: number): void {
  const fd = openSync(path, 'wx', 0o600);
  ftruncateSync(fd, size);
  closeSync(fd);
}

function start(program: string, args: readonly string[]): Child {
  return new Child(findProgram(program) ?? program, args);
}

/** Runs a client from its start to its end. */
async function timed(program: string, args: readonly string[]): Promise<{ seconds: number; lines: readonly string[] }> {
  const started = performance.now();
  const { at, lines } = await start(program, args).succeeded();
  return { seconds: (at - started) / 1000, lines };
}

/** Does something while a server answers, and ends the server in any case. */
async function withServer<T>(server: Child, port: number, act: () => Promise<T>): Promise<T> {
  try {
    await Promise.race([answers(port), server.succeeded().then(() => undefined)]);
    return await act();
  } finally {
    await server.end();
  }
}

async function answers(port: number): Promise<void> {
  const deadline = performance.now() + LISTEN_MS;
  while (!(await canConnect(port))) {
    if (performance.now() > deadline) throw new Error(`nothing answers on port ${port} after ${LISTEN_MS} ms`);
    await pause(20);
  }
}

async function canConnect(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, HOST);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}

/** A port that nobody listens on. Another program may take it before the server does; then that run fails and says so. */
async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, HOST, () => {
      const address = server.address();
      server.close(() => {
        if (typeof address === 'object' && address !== null) resolve(address.port);
        else reject(new Error('the system gave no port'));
      });
    });
  });
}
