import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { temporaryFolder } from '../support/folder.js';
import { eventsIn, failedClearly, receiverProgram, runSender } from '../support/programs.js';

const HERE = process.execPath;
/** The binary of a Node.js of another version; what runs the gate has one. */
const OTHER = process.env['BALLAST_OTHER_NODE'];
const testWithBoth = OTHER === undefined ? test.skip : test.serial;
const MIB = 2 ** 20;

function versionOf(node: string): string {
  return execFileSync(node, ['--version'], { encoding: 'utf8' }).trim();
}

function hasZstd(node: string): boolean {
  return execFileSync(node, ['-p', "'zstdCompressSync' in zlib"], { encoding: 'utf8' }).trim() === 'true';
}

for (const [direction, from = HERE, to = HERE] of [
  ['this Node.js to the other', HERE, OTHER],
  ['the other Node.js to this', OTHER, HERE],
] as const) {
  for (const compress of ['none', 'lz4', 'auto']) {
    for (const channels of ['1', '2']) {
      testWithBoth(`${direction}: ${compress} on ${channels} connection(s)`, async (t) => {
        t.log(versionOf(from), 'to', versionOf(to));
        const folder = await temporaryFolder(t);
        const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
        writeFileSync(source, Buffer.alloc(8 * MIB, 'what the guest remembers '));
        const { receiver, to: address } = await receiverProgram(t, [copy], { node: to });
        const args = [source, '--to', address, '--json', '--compress', compress, '--channels', channels];
        const sent = await runSender(t, [...args, '--bandwidth', '16MiB'], { node: from });
        t.is(sent.status, 0, sent.stderr);
        t.is((await receiver.ended).status, 0);
        t.true(readFileSync(copy).equals(readFileSync(source)));
        const done = eventsIn(sent.stdout).find(({ event }) => event === 'done');
        t.is(Number(done?.['storedBytes']) < 8 * MIB, compress !== 'none');
      });
    }
  }

  testWithBoth(`${direction}: zstd, where one of them lacks it, is refused with a way out`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeFileSync(source, Buffer.alloc(MIB, 'what the guest remembers '));
    const { receiver, to: address } = await receiverProgram(t, [copy], { node: to });
    const args = [source, '--to', address, '--compress', 'zstd', '--retry', '0'];
    const sent = await runSender(t, args, { node: from });
    if (hasZstd(from) && hasZstd(to)) {
      t.is(sent.status, 0, sent.stderr);
    } else {
      failedClearly(t, sent, hasZstd(from) ? 1 : 2, /22\.15 or newer/);
      receiver.kill('SIGTERM');
    }
    await receiver.ended;
  });
}
