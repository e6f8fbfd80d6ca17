import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { sendMemory, type SendOptions } from '@ballast/sender';
import type { ReceiveOptions } from '@ballast/receiver';
import type { WarningEvent } from '@ballast/shared/events';
import type { Address } from '@ballast/shared/transport';
import { temporaryFolder } from '../support/folder.js';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { failedClearly, runSender } from '../support/programs.js';
import { codeOf, listen, messageOf, orBallastError, type Waiting } from '../support/transfer.js';
import { Authority, makeCertificates, tlsDirectory, whyNoOpenssl, type Certificates } from './certificates.js';

const test = testUnless(await whyNoOpenssl());

/** Nobody may have to wait longer to learn that the other side is not whom they trust. */
const REFUSED_WITHIN_MS = 8000;
const LAYOUT: Layout = [
  { fill: Fill.data, pages: 40 },
  { fill: Fill.hole, pages: 100 },
  { fill: Fill.speck, pages: 3 },
];

/** A receiver that listens, and what it says of those that it turns away. */
class Door {
  readonly waiting: Waiting;
  readonly copy: string;
  readonly source: string;
  readonly #warnings: WarningEvent[];

  private constructor(waiting: Waiting, source: string, copy: string, warnings: WarningEvent[]) {
    this.waiting = waiting;
    this.source = source;
    this.copy = copy;
    this.#warnings = warnings;
  }

  static async open(t: ExecutionContext, folder: string, tls: ReceiveOptions['tls']): Promise<Door> {
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, LAYOUT);
    const warnings: WarningEvent[] = [];
    const ending = new AbortController();
    const waiting = await listen(t, {
      files: [copy],
      ...(tls && { tls }),
      signal: ending.signal,
      onEvent(event) {
        if (event.event === 'warning') warnings.push(event);
      },
    });
    t.teardown(async () => {
      ending.abort();
      await orBallastError(waiting.result);
    });
    return new Door(waiting, source, copy, warnings);
  }

  get address(): Address {
    return this.waiting.address;
  }

  /** What the receiver says of the n-th that it turned away. */
  async warning(n: number): Promise<WarningEvent> {
    for (const deadline = Date.now() + 2 * REFUSED_WITHIN_MS; Date.now() < deadline;) {
      const found = this.#warnings[n];
      if (found !== undefined) return found;
      await sleep(5);
    }
    throw new Error(`the receiver has not said why it turned away number ${n}`);
  }

  /** The right sender gets in, whoever was turned away before. */
  async letsIn(t: ExecutionContext, tls: SendOptions['tls']): Promise<void> {
    const sending = sendMemory({ files: [this.source], to: this.address, ...(tls && { tls }) });
    const [sent, received] = await Promise.all([orBallastError(sending), orBallastError(this.waiting.result)]);
    t.is(codeOf(sent), undefined, messageOf(sent));
    t.is(codeOf(received), undefined, messageOf(received));
    t.is(firstWrongPage(this.copy, LAYOUT), undefined);
  }
}

interface Refusal {
  readonly receiver: ReceiveOptions['tls'];
  readonly sender: SendOptions['tls'];
  /** What the sender says. */
  readonly sent: RegExp;
  /** What the receiver says. */
  readonly warned: RegExp;
  /** Who gets in afterwards; left out where the receiver's own certificate lets nobody in. */
  readonly right?: { readonly tls: SendOptions['tls'] };
}

/** A sender and a receiver that must not get together, tried with the library and with the program. */
async function refused(t: ExecutionContext, folder: string, refusal: Refusal): Promise<void> {
  const { receiver, sender, right } = refusal;
  const door = await Door.open(t, folder, receiver);

  const started = performance.now();
  const sent = await orBallastError(
    sendMemory({ files: [door.source], to: door.address, ...(sender && { tls: sender }) }),
  );
  const warning = await door.warning(0);
  const took = performance.now() - started;
  t.true(took < REFUSED_WITHIN_MS, `took ${Math.round(took)} ms`);
  t.is(codeOf(sent), 'E_TLS', messageOf(sent));
  t.regex(messageOf(sent), refusal.sent);
  t.is(warning.code, 'E_TLS', warning.message);
  t.regex(warning.message, /^turned away a connection from 127\.0\.0\.1:\d+: /);
  t.regex(warning.message, refusal.warned);

  const end = await runSender(t, [
    ...[door.source, '--to', `127.0.0.1:${door.address.port}`],
    ...(sender === undefined ? [] : ['--tls-dir', sender.directory]),
    ...(sender?.hostname === undefined ? [] : ['--tls-hostname', sender.hostname]),
  ]);
  failedClearly(t, end, 1, refusal.sent);

  if (right !== undefined) await door.letsIn(t, right.tls);
}

async function certificatesFor(t: ExecutionContext): Promise<Certificates> {
  return await makeCertificates(await temporaryFolder(t));
}

test('a sender whose certificate has expired is refused', async (t) => {
  const { folder, authority, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const client = await authority.issue({ commonName: 'host-a.test', usage: 'clientAuth', days: -1 });
  await refused(t, folder, {
    receiver: { directory: receiverDirectory },
    sender: { directory: await tlsDirectory(join(folder, 'expired'), { ca: authority.cert, client }) },
    sent: /says: the sender's certificate has expired/,
    warned: /the sender's certificate has expired/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a receiver whose certificate has expired is refused', async (t) => {
  const { folder, authority, senderDirectory } = await certificatesFor(t);
  const server = await authority.issue({
    commonName: 'host-b.test',
    usage: 'serverAuth',
    alternatives: ['IP:127.0.0.1'],
    days: -1,
  });
  await refused(t, folder, {
    receiver: { directory: await tlsDirectory(join(folder, 'expired'), { ca: authority.cert, server }) },
    sender: { directory: senderDirectory },
    sent: /the certificate of the receiver at 127\.0\.0\.1:\d+ has expired; nothing was sent/,
    warned: /says: the certificate of the receiver .* has expired/,
  });
});

test('a sender with a certificate of another authority is refused', async (t) => {
  const { folder, authority, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const other = await Authority.make(join(folder, 'other'), 'Another authority');
  const client = await other.issue({ commonName: 'host-a.test', usage: 'clientAuth' });
  await refused(t, folder, {
    receiver: { directory: receiverDirectory },
    sender: { directory: await tlsDirectory(join(folder, 'stranger'), { ca: authority.cert, client }) },
    sent: /says: the sender's certificate was not issued by the authority in ca-cert\.pem/,
    warned: /the sender's certificate was not issued by the authority in ca-cert\.pem/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a receiver with a certificate of another authority is refused', async (t) => {
  const { folder, authority, client, senderDirectory } = await certificatesFor(t);
  const other = await Authority.make(join(folder, 'other'), 'Another authority');
  const server = await other.issue({
    commonName: 'host-b.test',
    usage: 'serverAuth',
    alternatives: ['IP:127.0.0.1'],
  });
  await refused(t, folder, {
    receiver: { directory: await tlsDirectory(join(folder, 'stranger'), { ca: authority.cert, server }) },
    sender: { directory: senderDirectory },
    sent: /the certificate of the receiver at .* was not issued by the authority in ca-cert\.pem .*; nothing was sent/,
    warned: /says: the certificate of the receiver at .* was not issued by the authority/,
    // One that trusts that other authority, and whom the receiver trusts.
    right: { tls: { directory: await tlsDirectory(join(folder, 'friend'), { ca: other.cert, client }) } },
  });
});

test('a receiver whose certificate is for another name is refused, and --tls-hostname says which is right', async (t) => {
  const { folder, authority, senderDirectory } = await certificatesFor(t);
  const server = await authority.issue({
    commonName: 'host-c.test',
    usage: 'serverAuth',
    alternatives: ['DNS:host-c.test', 'IP:127.0.0.9'],
  });
  await refused(t, folder, {
    receiver: { directory: await tlsDirectory(join(folder, 'host-c'), { ca: authority.cert, server }) },
    sender: { directory: senderDirectory },
    sent: /the certificate of the receiver at .* is for host-c\.test, 127\.0\.0\.9 and not for 127\.0\.0\.1/,
    warned: /says: the certificate of the receiver at .* is for host-c\.test/,
    right: { tls: { directory: senderDirectory, hostname: 'host-c.test' } },
  });
});

test('a name that the certificate does not have is refused although the address would do', async (t) => {
  const { folder, receiverDirectory, senderDirectory } = await certificatesFor(t);
  await refused(t, folder, {
    receiver: { directory: receiverDirectory },
    sender: { directory: senderDirectory, hostname: 'host-z.test' },
    sent: /is for host-b\.test, 127\.0\.0\.1 and not for host-z\.test/,
    warned: /and not for host-z\.test/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a certificate for a server does not make a sender', async (t) => {
  const { folder, authority, server, receiverDirectory, senderDirectory } = await certificatesFor(t);
  await refused(t, folder, {
    receiver: { directory: receiverDirectory },
    sender: { directory: await tlsDirectory(join(folder, 'server'), { ca: authority.cert, client: server }) },
    sent: /says: the sender's certificate was issued for another purpose/,
    warned: /the sender's certificate was issued for another purpose/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a certificate for a client does not make a receiver', async (t) => {
  const { folder, authority, senderDirectory } = await certificatesFor(t);
  const server = await authority.issue({
    commonName: 'host-b.test',
    usage: 'clientAuth',
    alternatives: ['IP:127.0.0.1'],
  });
  await refused(t, folder, {
    receiver: { directory: await tlsDirectory(join(folder, 'client'), { ca: authority.cert, server }) },
    sender: { directory: senderDirectory },
    sent: /the certificate of the receiver at .* was issued for another purpose/,
    warned: /was issued for another purpose/,
  });
});

test('a sender that --tls-allow does not name is refused, and told which names it has', async (t) => {
  const { folder, authority, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const client = await authority.issue({
    commonName: 'host-x.test',
    usage: 'clientAuth',
    alternatives: ['DNS:x.alias.test'],
  });
  await refused(t, folder, {
    receiver: { directory: receiverDirectory, allow: ['host-a.test', 'host-d.test'] },
    sender: { directory: await tlsDirectory(join(folder, 'host-x'), { ca: authority.cert, client }) },
    sent: /says: the sender's certificate is for host-x\.test, x\.alias\.test, which --tls-allow does not name/,
    warned: /the sender's certificate is for host-x\.test, x\.alias\.test, which --tls-allow does not name/,
    // By its common name.
    right: { tls: { directory: senderDirectory } },
  });
});

test('--tls-allow takes an alternative name, and takes a name whole', async (t) => {
  const { folder, authority, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const client = await authority.issue({
    commonName: 'a.alias.test.example',
    usage: 'clientAuth',
    alternatives: ['DNS:a.alias.tes', 'DNS:*.test'],
  });
  await refused(t, folder, {
    receiver: { directory: receiverDirectory, allow: ['a.alias.test'] },
    sender: { directory: await tlsDirectory(join(folder, 'nearly'), { ca: authority.cert, client }) },
    sent: /which --tls-allow does not name/,
    warned: /which --tls-allow does not name/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a name that looks like a list of names is one name', async (t) => {
  const { folder, authority, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const client = await authority.issue({
    commonName: 'x, DNS:host-a.test',
    usage: 'clientAuth',
    // Whoever asks for a certificate chooses these; a separator within one makes no two of it.
    alternatives: ['DNS:x, DNS:host-a.test, DNS:y', 'URI:x:, DNS:host-a.test, DNS:y'],
  });
  await refused(t, folder, {
    receiver: { directory: receiverDirectory, allow: ['host-a.test'] },
    sender: { directory: await tlsDirectory(join(folder, 'forged'), { ca: authority.cert, client }) },
    sent: /which --tls-allow does not name/,
    warned: /which --tls-allow does not name/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a sender without TLS is refused by a receiver with TLS', async (t) => {
  const { folder, receiverDirectory, senderDirectory } = await certificatesFor(t);
  await refused(t, folder, {
    receiver: { directory: receiverDirectory },
    sender: undefined,
    sent: /says: the sender does not speak TLS; give both sides the same TLS options/,
    warned: /does not speak TLS; give both sides the same TLS options/,
    right: { tls: { directory: senderDirectory } },
  });
});

test('a sender with TLS is refused by a receiver without TLS', async (t) => {
  const { folder, senderDirectory } = await certificatesFor(t);
  await refused(t, folder, {
    receiver: undefined,
    sender: { directory: senderDirectory },
    sent: /no TLS connection to 127\.0\.0\.1:\d+: the other side does not speak TLS; give both sides the same TLS options/,
    warned: /it looks like TLS; give both sides the same TLS options/,
    right: { tls: undefined },
  });
});

test('who speaks HTTP is refused by a receiver with TLS', async (t) => {
  const { folder, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const door = await Door.open(t, folder, { directory: receiverDirectory });
  const started = performance.now();
  const socket = connect(door.address.port, '127.0.0.1');
  socket.on('error', () => undefined).resume();
  socket.write('GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n');
  await once(socket, 'close');
  const warning = await door.warning(0);
  t.true(performance.now() - started < REFUSED_WITHIN_MS);
  t.is(warning.code, 'E_TLS');
  t.regex(warning.message, /the other side speaks HTTP/);
  await door.letsIn(t, { directory: senderDirectory });
});

/** What `openssl s_client` has to say about a receiver, and how long that took. */
async function opensslClient(
  { port }: Address,
  args: readonly string[],
): Promise<{ output: string; failed: boolean; tookMs: number }> {
  const started = performance.now();
  return await new Promise((resolve) => {
    const child = execFile(
      'openssl',
      ['s_client', '-connect', `127.0.0.1:${port}`, '-ign_eof', ...args],
      { timeout: 5000 },
      (error, stdout, stderr) => {
        resolve({ output: stdout + stderr, failed: error !== null, tookMs: performance.now() - started });
      },
    );
    child.stdin?.end();
  });
}

test('a sender without a certificate is refused, and told so', async (t) => {
  const { folder, authority, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const door = await Door.open(t, folder, { directory: receiverDirectory });
  const { output, tookMs } = await opensslClient(door.address, ['-CAfile', authority.cert]);
  t.regex(output, /E_TLS/);
  t.regex(output, /the sender has no certificate; give it --tls-dir/);
  t.true(tookMs < REFUSED_WITHIN_MS, String(tookMs));
  const warning = await door.warning(0);
  t.is(warning.code, 'E_TLS');
  t.regex(warning.message, /the sender has no certificate/);
  await door.letsIn(t, { directory: senderDirectory });
});

test('TLS 1.2 is refused, and 1.3 is spoken', async (t) => {
  const { folder, authority, client, receiverDirectory, senderDirectory } = await certificatesFor(t);
  const door = await Door.open(t, folder, { directory: receiverDirectory });
  const trusted = ['-CAfile', authority.cert, '-cert', client.cert, '-key', client.key];
  const old = await opensslClient(door.address, [...trusted, '-tls1_2']);
  t.true(old.failed);
  t.regex(old.output, /alert protocol version/i);
  t.true(old.tookMs < REFUSED_WITHIN_MS, String(old.tookMs));
  const warning = await door.warning(0);
  t.is(warning.code, 'E_TLS');
  t.regex(warning.message, /the other side does not speak TLS 1\.3/);

  // No closer of its own: what it is sent would be no hello.
  const current = execFile('openssl', ['s_client', '-connect', `127.0.0.1:${door.address.port}`, ...trusted]);
  t.teardown(() => current.kill());
  let said = '';
  current.stdout?.on('data', (text: string) => {
    said += text;
  });
  for (const deadline = Date.now() + 5000; !said.includes('Verify return code') && Date.now() < deadline;)
    await sleep(10);
  t.regex(said, /New, TLSv1\.3/);
  t.regex(said, /Verify return code: 0/);
  current.kill();
  await door.letsIn(t, { directory: senderDirectory });
});

test('a sender with TLS is refused by a server that speaks something else altogether', async (t) => {
  const { folder, senderDirectory } = await certificatesFor(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, LAYOUT);
  const server = createServer((socket) => {
    socket.on('error', () => undefined).end('SSH-2.0-OpenSSH_9.2\r\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('no address');
  const started = performance.now();
  const to = { host: '127.0.0.1', port: bound.port };
  const sent = await orBallastError(sendMemory({ files: [source], to, tls: { directory: senderDirectory } }));
  t.true(performance.now() - started < REFUSED_WITHIN_MS);
  t.is(codeOf(sent), 'E_TLS', messageOf(sent));
  t.regex(messageOf(sent), /the other side does not speak TLS/);
});
