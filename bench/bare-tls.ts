import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, createServer, type SecureContextOptions } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { Child } from './child.js';
import type { Contender } from './contender.js';

/**
 * The limit of TLS: as many bytes from one process to another by Node's own TLS sockets, written in MiB and thrown away
 * as they come. This module is both programs, too: `bare-tls.js listen TLS-DIR`, `bare-tls.js send TLS-DIR PORT BYTES`.
 */
export function bareTls(name: string, bytes: number, directory: string): Contender {
  const self = fileURLToPath(import.meta.url);
  return {
    name,
    what: "node: tls.createServer, on('data'); node: tls.connect, write(1 MiB)",
    async run() {
      const server = new Child(process.execPath, [self, 'listen', directory], { name: 'TLS server' });
      let client: Child | undefined;
      try {
        const port = await server.waitForLine((line) => /^\d+$/.exec(line)?.[0], 'its port');
        const started = performance.now();
        client = new Child(process.execPath, [self, 'send', directory, port, String(bytes)], { name: 'TLS client' });
        const [sent, received] = await Promise.all([client.ended, server.ended]);
        if (sent.code !== 0 || received.code !== 0)
          throw new Error(`TLS alone failed: ${sent.stderr}${received.stderr}`);
        return { seconds: (Math.max(sent.at, received.at) - started) / 1000 };
      } finally {
        await Promise.all([client?.end(), server.end()]);
      }
    },
  };
}

const PIECE = Buffer.alloc(1 << 20, 'page');

function identity(directory: string, side: 'server' | 'client'): SecureContextOptions {
  const pem = (name: string): Buffer => readFileSync(join(directory, name));
  return {
    ca: pem('ca-cert.pem'),
    cert: pem(`${side}-cert.pem`),
    key: pem(`${side}-key.pem`),
    minVersion: 'TLSv1.3',
  };
}

function listen(directory: string): void {
  const options = { ...identity(directory, 'server'), requestCert: true };
  const server = createServer(options, (socket) => {
    socket.resume();
    socket.once('end', () => {
      socket.end();
      server.close();
    });
  });
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    if (address !== null && typeof address === 'object') console.log(address.port);
  });
}

function send(directory: string, port: number, bytes: number): void {
  const socket = connect({ host: '127.0.0.1', port, ...identity(directory, 'client') });
  let left = bytes;
  const more = (): void => {
    while (left > 0) {
      const piece = PIECE.subarray(0, Math.min(left, PIECE.length));
      left -= piece.length;
      if (!socket.write(piece)) return;
    }
    socket.end();
  };
  socket.once('secureConnect', more);
  socket.on('drain', more);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , role, directory = '', port, bytes] = process.argv;
  if (role === 'listen') listen(directory);
  else send(directory, Number(port), Number(bytes));
}
