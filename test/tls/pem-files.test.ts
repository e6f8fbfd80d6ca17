import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { receiveMemory } from '@ballast/receiver';
import { sendMemory } from '@ballast/sender';
import type { ExecutionContext } from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { Fill, writeMemoryFile } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { failedClearly, programFile, runReceiver, runSender } from '../support/programs.js';
import { codeOf, messageOf, orBallastError } from '../support/transfer.js';
import { makeCertificates, whyNoOpenssl, type Certificates } from './certificates.js';

const test = testUnless(await whyNoOpenssl());
const run = promisify(execFile);

/** Spoils both directories in the same way, and asserts that each side refuses its own before it talks to anyone. */
async function bothRefuse(
  t: ExecutionContext,
  sentence: RegExp,
  spoil: (directory: string, side: 'server' | 'client', certificates: Certificates) => Promise<void>,
): Promise<void> {
  const folder = await temporaryFolder(t);
  const certificates = await makeCertificates(folder);
  const { senderDirectory, receiverDirectory } = certificates;
  await spoil(senderDirectory, 'client', certificates);
  await spoil(receiverDirectory, 'server', certificates);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, [{ fill: Fill.data, pages: 1 }]);
  // Nobody listens there: a sender that went so far would say so.
  const to = { host: '127.0.0.1', port: 9 };

  const started = performance.now();
  const listenAt = { host: '127.0.0.1', port: 0 };
  for (const ended of [
    await orBallastError(sendMemory({ files: [source], to, tls: { directory: senderDirectory } })),
    await orBallastError(receiveMemory({ files: [copy], listen: listenAt, tls: { directory: receiverDirectory } })),
  ]) {
    t.is(codeOf(ended), 'E_TLS', messageOf(ended));
    t.regex(messageOf(ended), sentence);
  }
  t.true(performance.now() - started < 10_000);

  failedClearly(t, await runSender(t, [source, '--to', '127.0.0.1:9', '--tls-dir', senderDirectory]), 1, sentence);
  failedClearly(
    t,
    await runReceiver(t, [copy, '--listen', '127.0.0.1:0', '--tls-dir', receiverDirectory]),
    1,
    sentence,
  );
}

for (const file of ['ca-cert.pem', 'SIDE-cert.pem', 'SIDE-key.pem']) {
  const sentence = (what: string): RegExp => new RegExp(`${file.replace('SIDE', '(client|server)')}.* ${what}`);

  const unusable = file.endsWith('key.pem')
    ? /do not work together .*; (client|server)-key\.pem must be the unencrypted key of (client|server)-cert\.pem/
    : sentence('holds no certificate; expected one in PEM');

  test(`${file} is missing`, async (t) => {
    await bothRefuse(t, sentence('does not exist; --tls-dir expects ca-cert\\.pem'), async (directory, side) => {
      await rm(join(directory, file.replace('SIDE', side)));
    });
  });

  test(`${file} is a folder`, async (t) => {
    await bothRefuse(t, sentence('is not a regular file; --tls-dir expects'), async (directory, side) => {
      const path = join(directory, file.replace('SIDE', side));
      await rm(path);
      await run('mkdir', [path]);
    });
  });

  test(`${file} is a pipe that nobody writes into`, async (t) => {
    await bothRefuse(t, sentence('is not a regular file; --tls-dir expects'), async (directory, side) => {
      const path = join(directory, file.replace('SIDE', side));
      await rm(path);
      await run('mkfifo', [path]);
    });
  });

  test(`${file} is garbage`, async (t) => {
    await bothRefuse(t, unusable, async (directory, side) => {
      await writeFile(join(directory, file.replace('SIDE', side)), 'not a certificate, and not a key\n');
    });
  });

  test(`${file} is empty`, async (t) => {
    await bothRefuse(t, unusable, async (directory, side) => {
      await writeFile(join(directory, file.replace('SIDE', side)), '');
    });
  });
}

for (const file of ['ca-cert.pem', 'SIDE-cert.pem']) {
  test(`the second certificate in ${file} is cut short`, async (t) => {
    const sentence = /certificate 2 of 2 in .*-cert\.pem is damaged, or cut short/;
    await bothRefuse(t, sentence, async (directory, side) => {
      const path = join(directory, file.replace('SIDE', side));
      const whole = await readFile(path, 'latin1');
      await writeFile(path, `${whole}${whole.slice(0, 200)}\n`);
    });
  });
}

test('the key of another certificate', async (t) => {
  await bothRefuse(
    t,
    /do not work together .*(client|server)-key\.pem must be the unencrypted key of (client|server)-cert\.pem/,
    async (directory, side, { server, client }) => {
      const other = side === 'server' ? client : server;
      await run('cp', [other.key, join(directory, `${side}-key.pem`)]);
    },
  );
});

test('a key that wants a passphrase', async (t) => {
  await bothRefuse(t, /do not work together .*unencrypted key/, async (directory, side) => {
    const path = join(directory, `${side}-key.pem`);
    await run('openssl', ['pkey', '-in', path, '-aes256', '-passout', 'pass:secret', '-out', `${path}.new`]);
    await run('mv', [`${path}.new`, path]);
  });
});

test('a directory that is not there', async (t) => {
  await bothRefuse(t, /ca-cert\.pem does not exist/, async (directory) => {
    await rm(directory, { recursive: true });
  });
});

test('a key that this user may not read', async (t) => {
  const folder = await temporaryFolder(t);
  const { senderDirectory } = await makeCertificates(folder);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 1 }]);
  await chmod(join(senderDirectory, 'client-key.pem'), 0);
  if (process.geteuid?.() === 0) {
    // Root may read anything: as nobody, then, with everything else readable.
    await run('chmod', ['o+rx', folder, senderDirectory]);
    await run('chmod', ['o+r', source, join(senderDirectory, 'ca-cert.pem'), join(senderDirectory, 'client-cert.pem')]);
    const failure: unknown = await run('setpriv', [
      ...['--reuid', '65534', '--regid', '65534', '--clear-groups', process.execPath],
      ...[programFile('sender/bin/ballast-send.js'), source, '--to', '127.0.0.1:9', '--tls-dir', senderDirectory],
    ]).catch((error: unknown) => error);
    t.regex(String(failure), /client-key\.pem cannot be read \(EACCES\)/);
    return;
  }
  const end = await runSender(t, [source, '--to', '127.0.0.1:9', '--tls-dir', senderDirectory]);
  failedClearly(t, end, 1, /client-key\.pem cannot be read \(EACCES\)/);
});
