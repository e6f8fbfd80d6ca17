import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { sendMemory } from '@ballast/sender';
import { temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { attempt, codeOf, listen, messageOf, orBallastError, transfer } from '../support/transfer.js';
import { whileHeld } from '../support/wire.js';

const SMALL: Layout = [
  { fill: Fill.data, pages: 30 },
  { fill: Fill.hole, pages: 30 },
];
/** More than the wire and both programs hold between them. */
const LARGE: Layout = [{ fill: Fill.data, pages: 6000 }];

test('a file that exists is refused before anyone can connect, and left as it was', async (t) => {
  const folder = await temporaryFolder(t);
  const copy = join(folder, 'copy.mem');
  writeFileSync(copy, 'precious');
  await t.throwsAsync(listen(t, { files: [copy] }), { code: 'E_EXISTS', message: /copy\.mem exists already/ });
  t.is(readFileSync(copy, 'utf8'), 'precious');
});

test('a file that exists is replaced with force', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, SMALL);
  writeFileSync(copy, 'old');
  await transfer({ from: [source], to: [copy], receive: { force: true } });
  t.is(firstWrongPage(copy, SMALL), undefined);
});

test('a new file is for this user alone', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, SMALL);
  await transfer({ from: [source], to: [copy] });
  t.is(statSync(copy).mode & 0o777, 0o600);
  t.deepEqual(readdirSync(folder).sort(), ['copy.mem', 'guest.mem']);
});

test('a file that appears in the middle of a transfer is left untouched, and the transfer fails', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, () => {
      writeFileSync(copy, 'newcomer');
    }),
  });
  t.is(codeOf(received), 'E_EXISTS', messageOf(received));
  t.is(codeOf(sent), 'E_EXISTS', messageOf(sent));
  t.is(readFileSync(copy, 'utf8'), 'newcomer');
  t.false(existsSync(`${copy}.partial`));
});

test('of several files none gets its name when one of them cannot', async (t) => {
  const folder = await temporaryFolder(t);
  const from = [join(folder, 'a.mem'), join(folder, 'b.mem')];
  const to = [join(folder, 'a.copy'), join(folder, 'b.copy')];
  for (const path of from) writeMemoryFile(path, LARGE);
  const { sent, received } = await attempt({
    from,
    to,
    via: whileHeld(t, 1 << 20, () => {
      writeFileSync(join(folder, 'b.copy'), 'newcomer');
    }),
  });
  t.is(codeOf(received), 'E_EXISTS');
  t.is(codeOf(sent), 'E_EXISTS');
  t.deepEqual(readdirSync(folder).sort(), ['a.mem', 'b.copy', 'b.mem']);
  t.is(readFileSync(join(folder, 'b.copy'), 'utf8'), 'newcomer');
});

test('of several files that replace others, all are as they were when one cannot have its name', async (t) => {
  const folder = await temporaryFolder(t);
  const from = [join(folder, 'a.mem'), join(folder, 'b.mem')];
  const to = [join(folder, 'a.copy'), join(folder, 'b.copy')];
  for (const path of from) writeMemoryFile(path, LARGE);
  for (const path of to) writeFileSync(path, 'precious');
  const { received } = await attempt({
    from,
    to,
    receive: { force: true },
    via: whileHeld(t, 1 << 20, () => {
      rmSync(join(folder, 'b.copy'));
      mkdirSync(join(folder, 'b.copy'));
    }),
  });
  t.is(codeOf(received), 'E_WRITE', messageOf(received));
  t.is(readFileSync(join(folder, 'a.copy'), 'utf8'), 'precious');
  t.true(statSync(join(folder, 'b.copy')).isDirectory());

  rmSync(join(folder, 'b.copy'), { recursive: true });
  await transfer({ from, to, receive: { force: true } });
  for (const path of to) t.is(firstWrongPage(path, LARGE), undefined);
  t.deepEqual(readdirSync(folder).sort(), ['a.copy', 'a.mem', 'b.copy', 'b.mem'], 'what was replaced is gone');
});

test('what someone put in the place of FILE.partial in the middle never gets the final name', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, () => {
      rmSync(`${copy}.partial`);
      writeFileSync(`${copy}.partial`, 'of somebody else');
    }),
  });
  t.is(codeOf(received), 'E_WRITE');
  t.regex(messageOf(received), /copy\.mem\.partial was removed or replaced .* run the transfer again$/);
  t.true(sent instanceof Error);
  t.false(existsSync(copy));
  t.is(readFileSync(`${copy}.partial`, 'utf8'), 'of somebody else');
});

test('a transfer that fails when its partial file was removed says why it failed', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const { received } = await attempt({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, () => {
      rmSync(`${copy}.partial`);
      truncateSync(source, PAGE);
    }),
  });
  t.is(codeOf(received), 'E_SOURCE_CHANGED', messageOf(received));
  t.deepEqual(readdirSync(folder), ['guest.mem']);
});

test('nothing has the final name before the transfer is complete', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  await transfer({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, () => {
      t.false(existsSync(copy));
      t.is(statSync(`${copy}.partial`).mode & 0o777, 0o600);
    }),
  });
  t.is(firstWrongPage(copy, LARGE), undefined);
});

test('a symbolic link in place of FILE.partial is refused, and what it points to left as it was', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy, victim] = [join(folder, 'guest.mem'), join(folder, 'copy.mem'), join(folder, 'victim')];
  writeMemoryFile(source, SMALL);
  writeFileSync(victim, 'precious');
  symlinkSync(victim, `${copy}.partial`);
  const { sent, received } = await attempt({ from: [source], to: [copy] });
  t.is(codeOf(received), 'E_BAD_FILE');
  t.is(codeOf(sent), 'E_BAD_FILE');
  t.regex(messageOf(received), /symbolic link/);
  t.is(readFileSync(victim, 'utf8'), 'precious');
  t.false(existsSync(copy));
});

test('what an earlier run left as FILE.partial is written over', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, SMALL);
  writeFileSync(`${copy}.partial`, Buffer.alloc(1 << 20, 'stale'));
  await transfer({ from: [source], to: [copy] });
  t.is(firstWrongPage(copy, SMALL), undefined);
  t.false(existsSync(`${copy}.partial`));
});

test('a second receiver for the same file is busy, and does no harm to the first', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  await transfer({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, async () => {
      const second = await attempt({ from: [source], to: [copy] });
      t.is(codeOf(second.received), 'E_BUSY', messageOf(second.received));
      t.is(codeOf(second.sent), 'E_BUSY', messageOf(second.sent));
      t.true(existsSync(`${copy}.partial`));
    }),
  });
  t.is(firstWrongPage(copy, LARGE), undefined);
});

test('a second sender is told that the receiver is busy, and the first goes on', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  await transfer({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, async (receiver) => {
      const second = await orBallastError(sendMemory({ files: [source], to: receiver }));
      t.is(codeOf(second), 'E_BUSY', messageOf(second));
    }),
  });
  t.is(firstWrongPage(copy, LARGE), undefined);
});

test('a name that no file can have is refused before anyone can connect', async (t) => {
  const folder = await temporaryFolder(t);
  mkdirSync(join(folder, 'folder'));
  await t.throwsAsync(listen(t, { files: [join(folder, 'folder')] }), {
    code: 'E_BAD_FILE',
    message: /is a directory/,
  });
  await t.throwsAsync(listen(t, { files: [join(folder, 'folder', '/')] }), { code: 'E_BAD_FILE' });
  await t.throwsAsync(listen(t, { files: [join(folder, 'missing', 'copy.mem')] }), {
    code: 'E_NOT_FOUND',
    message: /folder .* does not exist/,
  });
  await t.throwsAsync(listen(t, { files: [join(folder, 'n'.repeat(300))] }), {
    code: 'E_BAD_FILE',
    message: /too long/,
  });
  const partialIsTooLong = join(folder, 'n'.repeat(255 - '.partial'.length + 1));
  await t.throwsAsync(listen(t, { files: [partialIsTooLong] }), { code: 'E_BAD_FILE', message: /too long/ });
  writeFileSync(join(folder, 'file'), '');
  await t.throwsAsync(listen(t, { files: [join(folder, 'file', 'copy.mem')] }), {
    code: 'E_BAD_FILE',
    message: /file is not a folder/,
  });
  symlinkSync('loop', join(folder, 'loop'));
  await t.throwsAsync(listen(t, { files: [join(folder, 'loop', 'copy.mem')] }), {
    code: 'E_WRITE',
    message: /\(ELOOP\)/,
  });
  await t.throwsAsync(listen(t, { files: [] }), { code: 'E_USAGE' });
  await t.throwsAsync(listen(t, { files: [join(folder, 'a'), join(folder, 'a')] }), { code: 'E_USAGE' });
  await t.throwsAsync(listen(t, { files: [join(folder, 'a'), `${folder}/./a`] }), { code: 'E_USAGE' });
});
