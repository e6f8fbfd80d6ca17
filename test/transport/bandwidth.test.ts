import { join } from 'node:path';
import test from 'ava';
import { sendMemory } from '@ballast/sender';
import { ErrorCode } from '@ballast/shared/errors';
import { temporaryFolder } from '../support/folder.js';
import { Fill, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { Program, failedClearly, receiverProgram, runSender } from '../support/programs.js';
import { attempt, codeOf, transfer } from '../support/transfer.js';
import { makeCertificates, whyNoOpenssl } from '../tls/certificates.js';

const testTls = testUnless(await whyNoOpenssl());

/** 3 MiB of data with a hole in between. */
const LAYOUT: Layout = [
  { fill: Fill.data, pages: 600 },
  { fill: Fill.hole, pages: 1000 },
  { fill: Fill.data, pages: 168 },
];
/** 20 Mbit/s: the data above takes more than a second. */
const BANDWIDTH = 2_500_000;

test('a capped transfer takes as long as its bytes need at that rate, its first ones included', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const { sent } = await transfer({ from: [source], to: [copy], send: { bandwidth: BANDWIDTH } });
  t.true(sent.seconds >= (0.97 * 768 * 4096) / BANDWIDTH, `${sent.seconds} s`);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

testTls('so does one over TLS', async (t) => {
  const folder = await temporaryFolder(t);
  const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LAYOUT);
  const { sent } = await transfer({
    from: [source],
    to: [copy],
    send: { bandwidth: BANDWIDTH, tls: { directory: senderDirectory } },
    receive: { tls: { directory: receiverDirectory } },
  });
  t.true(sent.seconds >= (0.97 * 768 * 4096) / BANDWIDTH, `${sent.seconds} s`);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test('a cap far below a timeout of a second does not look like silence', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 64 }]);
  const { sent } = await attempt({
    from: [source],
    to: [],
    send: { bandwidth: 125_000, timeoutMs: 1000, retryMs: 0 },
    receive: { sink: true, timeoutMs: 1000 },
  });
  t.is(codeOf(sent), undefined);
});

test('an interrupted sender that is capped tells the receiver why, and both end', async (t) => {
  const folder = await temporaryFolder(t);
  const source = join(folder, 'guest.mem');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 4096 }]);
  const { receiver, to } = await receiverProgram(t, ['--sink']);
  const sender = Program.sender(t, [source, '--to', to, '--bandwidth', '1Mbit', '--json']);
  await sender.event('progress', 3);
  sender.kill('SIGINT');
  t.is((await sender.ended).status, 130);
  failedClearly(t, await receiver.ended, 1, /says: .*interrupted/);
});

test('a rate without a unit, or one that is too low, is wrong usage', async (t) => {
  for (const [rate, sentence] of [
    ['10', /'10' is no rate; expected bits a second/],
    ['1kbit', /'1kbit' is out of range; expected 1,000 kbit or more, or unlimited/],
  ] as const) {
    failedClearly(t, await runSender(t, ['guest.mem', '--to', 'localhost', '--bandwidth', rate]), 2, sentence);
  }
  for (const bandwidth of [0, -1, NaN]) {
    const error = await t.throwsAsync(
      sendMemory({ files: ['guest.mem'], to: { host: '127.0.0.1', port: 1 }, bandwidth }),
    );
    t.like(error, { code: ErrorCode.USAGE });
  }
});
