import { execFile } from 'node:child_process';
import { readFile, rm, cp } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { receiverProgram, runSender } from '../support/programs.js';
import { codeOf, attempt } from '../support/transfer.js';
import { whyNoOpenssl } from './certificates.js';

const test = testUnless(await whyNoOpenssl());
const run = promisify(execFile);

const PAGE = fileURLToPath(new URL('../../../docs/certificates.md', import.meta.url));
const LAYOUT: Layout = [
  { fill: Fill.data, pages: 30 },
  { fill: Fill.hole, pages: 30 },
];

/** The commands of the page, with an address that this machine has. */
async function commands(): Promise<string[]> {
  const page = (await readFile(PAGE, 'utf8')).replace('receiver_ip=192.0.2.20', 'receiver_ip=127.0.0.1');
  return [...page.matchAll(/^```bash\n(.*?)^```$/gms)].map(([, text = '']) => text);
}

async function follow(folder: string, blocks: readonly string[]): Promise<string> {
  const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', blocks.join('\n')], { cwd: folder });
  return stdout;
}

async function moves(t: ExecutionContext, folder: string, options: readonly string[]): Promise<void> {
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const { receiver, to } = await receiverProgram(t, [
    ...[copy, '--force', '--tls-dir', join(folder, 'for-receiver'), '--tls-allow', 'host-a'],
  ]);
  const sent = await runSender(t, [source, '--to', to, '--tls-dir', join(folder, 'for-sender'), ...options]);
  t.is(sent.status, 0, sent.stderr);
  t.is((await receiver.ended).status, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
}

test('whoever follows docs/certificates.md moves a memory with the result', async (t) => {
  const folder = await temporaryFolder(t);
  const said = await follow(folder, await commands());
  t.regex(said, /for-receiver\/server-cert\.pem: OK\nfor-sender\/client-cert\.pem: OK/);
  t.regex(said, /DNS:host-b, IP Address:127\.0\.0\.1/);
  t.regex(said, /Certificate will not expire/);
  await moves(t, folder, []);
  await moves(t, folder, ['--tls-hostname', 'host-b']);
  t.is((await run('find', [folder, '-name', '*.pem', '-perm', '/077'])).stdout, '', 'keys are for nobody else');
});

test('what the page says about another authority and about renewal is so', async (t) => {
  const folder = await temporaryFolder(t);
  const blocks = await commands();
  await follow(folder, blocks);
  // A second sender of the second authority, which both sides trust beside the first.
  await cp(join(folder, 'for-sender'), join(folder, 'second'), { recursive: true });
  const byTheSecond = blocks
    .filter((block) => block.includes('receiver_ip=') || block.includes('client.csr'))
    .map((block) =>
      block
        .replaceAll('for-sender/', 'second/')
        .replaceAll('authority/ca-cert.pem', 'authority/ca-cert-2.pem')
        .replaceAll('authority/ca-key.pem', 'authority/ca-key-2.pem'),
    );
  await follow(folder, byTheSecond);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const byWhom = async (sender: string): Promise<string | undefined> => {
    const { sent } = await attempt({
      from: [source],
      to: [copy],
      send: { tls: { directory: join(folder, sender) } },
      receive: { force: true, tls: { directory: join(folder, 'for-receiver') }, signal: AbortSignal.timeout(3000) },
    });
    return codeOf(sent);
  };
  t.is(await byWhom('second'), undefined);
  t.is(await byWhom('for-sender'), undefined);
  // The old authority taken out: its senders are out, too.
  await cp(join(folder, 'authority/ca-cert-2.pem'), join(folder, 'for-receiver/ca-cert.pem'));
  t.is(await byWhom('for-sender'), 'E_TLS');
  t.is(await byWhom('second'), undefined);
  await rm(copy);
});

test('each sentence of the table of refusals is one that the programs say', async (t) => {
  const page = await readFile(PAGE, 'utf8');
  const table = page.slice(page.indexOf('## What a refusal means'));
  const rows = [...table.matchAll(/^\| (`[^|]*`) \|/gm)].map(([, cell = '']) => cell);
  t.true(rows.length > 10);
  const sources = [
    'shared/src/transport/tls-identity.ts',
    'shared/src/transport/reads.ts',
    'shared/src/protocol/decoder.ts',
    'receiver/src/listener.ts',
    'receiver/src/trust.ts',
    'receiver/src/handshakes.ts',
    'sender/src/connect.ts',
  ];
  const root = fileURLToPath(new URL('../../../packages/', import.meta.url));
  const code = (await Promise.all(sources.map((path) => readFile(join(root, path), 'utf8')))).join('\n');
  for (const sentence of rows.flatMap((row) => [...row.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text))) {
    // What is put into a sentence is not in the code: its fixed parts are.
    for (const part of sentence.split(/…| [XY](?=[ ,]|$)/).map((text) => text.trim())) {
      if (part.length > 3) t.true(code.includes(part), `'${part}' of '${sentence}'`);
    }
  }
});
