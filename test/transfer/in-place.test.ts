import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { STRATEGY_NAMES } from '@ballast/sender';
import { tryLock } from '@ballast/shared/memory';
import { countsEveryPage, temporaryFolder } from '../support/folder.js';
import {
  Fill,
  PAGE,
  allocatedPages,
  countPages,
  firstWrongPage,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { attempt, codeOf, listen, messageOf, transfer } from '../support/transfer.js';
import { Wire, whileHeld } from '../support/wire.js';

const NEW: Layout = [
  { fill: Fill.hole, pages: 3 },
  { fill: Fill.data, pages: 20 },
  { fill: Fill.zero, pages: 9 },
  { fill: Fill.speck, pages: 1 },
  { fill: Fill.hole, pages: 200 },
  { fill: Fill.data, pages: 1 },
  { fill: Fill.hole, pages: 40 },
];
const NEW_DATA = 22;
/** As large, and every page holds something else. */
const OLD: Layout = [{ fill: Fill.data, pages: countPages(NEW) }];

for (const strategy of STRATEGY_NAMES) {
  test(`in place, the file gets the new memory and loses every page that holds nothing, with ${strategy}`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, file] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem')];
    writeMemoryFile(source, NEW, 1);
    writeMemoryFile(file, OLD, 2);
    const { ino, mode } = statSync(file);
    const { sent, received } = await transfer({
      from: [source],
      to: [file],
      send: { strategy },
      receive: { inPlace: true },
    });
    t.is(sent.root, received.root);
    t.is(firstWrongPage(file, NEW, 1), undefined);
    t.is(statSync(file).ino, ino, 'a QEMU that waits has this inode mapped');
    t.is(statSync(file).mode, mode);
    if (await countsEveryPage(folder)) t.is(allocatedPages(file), NEW_DATA);
    t.false(existsSync(`${file}.incomplete`));
    t.false(existsSync(`${file}.partial`));
  });
}

test('in place, a file of another size is refused and left as it was', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, file] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem')];
  writeMemoryFile(source, NEW);
  writeFileSync(file, Buffer.alloc(16 * PAGE, 'old'));
  const { sent, received } = await attempt({ from: [source], to: [file], receive: { inPlace: true } });
  t.is(codeOf(received), 'E_MISMATCH');
  t.is(codeOf(sent), 'E_MISMATCH');
  t.regex(messageOf(received), /same memory size/);
  t.true(readFileSync(file).equals(Buffer.alloc(16 * PAGE, 'old')));
  t.false(existsSync(`${file}.incomplete`));
});

test('in place, a file that does not exist is refused before anyone can connect', async (t) => {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'waiting.mem');
  await t.throwsAsync(listen(t, { files: [file], inPlace: true }), {
    code: 'E_NOT_FOUND',
    message: /waiting\.mem does not exist/,
  });
  t.false(existsSync(file));
});

test('in place, a folder is refused before anyone can connect', async (t) => {
  const folder = await temporaryFolder(t);
  mkdirSync(join(folder, 'waiting.mem'));
  await t.throwsAsync(listen(t, { files: [join(folder, 'waiting.mem')], inPlace: true }), { code: 'E_BAD_FILE' });
});

test('in place, a note beside the file says that it is incomplete, during the transfer and after a failed one', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, file] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem')];
  const layout: Layout = [{ fill: Fill.data, pages: 2000 }];
  writeMemoryFile(source, layout, 1);
  writeMemoryFile(file, layout, 2);
  const { sent, received } = await attempt({
    from: [source],
    to: [file],
    send: { retryMs: 0 },
    receive: { inPlace: true, timeoutMs: 1000 },
    async via(receiver) {
      const wire = await Wire.open(t, receiver, 1 << 20);
      wire.whenHeld(() => {
        t.regex(readFileSync(`${file}.incomplete`, 'utf8'), /incomplete: run the transfer again/);
        wire.cut();
      });
      return wire.address;
    },
  });
  t.is(codeOf(received), 'E_CONNECTION_LOST');
  t.is(codeOf(sent), 'E_CONNECTION_LOST');
  t.true(existsSync(`${file}.incomplete`));

  await transfer({ from: [source], to: [file], receive: { inPlace: true } });
  t.false(existsSync(`${file}.incomplete`), 'the next success takes the note away');
  t.is(firstWrongPage(file, layout, 1), undefined);
});

test('in place, the note is never written through a symbolic link', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, file, victim] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem'), join(folder, 'victim')];
  writeMemoryFile(source, OLD, 1);
  writeMemoryFile(file, OLD, 2);
  writeFileSync(victim, 'precious');
  symlinkSync(victim, `${file}.incomplete`);
  const { received } = await attempt({ from: [source], to: [file], receive: { inPlace: true } });
  t.is(codeOf(received), 'E_WRITE');
  t.is(readFileSync(victim, 'utf8'), 'precious');
  t.is(firstWrongPage(file, OLD, 2), undefined, 'the memory was left as it was');
});

test('in place, a file that another receiver writes is busy', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, file] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem')];
  writeMemoryFile(source, OLD, 1);
  writeMemoryFile(file, OLD, 2);
  const fd = openSync(file, 'r');
  t.teardown(() => {
    closeSync(fd);
  });
  t.true(tryLock(fd));
  const { sent, received } = await attempt({ from: [source], to: [file], receive: { inPlace: true } });
  t.is(codeOf(received), 'E_BUSY');
  t.is(codeOf(sent), 'E_BUSY');
  t.is(firstWrongPage(file, OLD, 2), undefined);
});

test('in place, a file that is replaced in the middle is not said to have arrived', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, file, other] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem'), join(folder, 'other.mem')];
  const layout: Layout = [{ fill: Fill.data, pages: 6000 }];
  writeMemoryFile(source, layout, 1);
  writeMemoryFile(file, layout, 2);
  writeMemoryFile(other, layout, 3);
  const { sent, received } = await attempt({
    from: [source],
    to: [file],
    receive: { inPlace: true },
    via: whileHeld(t, 1 << 20, () => {
      renameSync(other, file);
    }),
  });
  t.is(codeOf(received), 'E_WRITE', messageOf(received));
  t.regex(messageOf(received), /waiting\.mem was removed or replaced/);
  t.true(sent instanceof Error);
  t.is(firstWrongPage(file, layout, 3), undefined);
});

test('in place, a note that someone has taken away in the middle costs nothing', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, file] = [join(folder, 'guest.mem'), join(folder, 'waiting.mem')];
  const layout: Layout = [{ fill: Fill.data, pages: 6000 }];
  writeMemoryFile(source, layout, 1);
  writeMemoryFile(file, layout, 2);
  await transfer({
    from: [source],
    to: [file],
    receive: { inPlace: true },
    via: whileHeld(t, 1 << 20, () => {
      rmSync(`${file}.incomplete`);
    }),
  });
  t.is(firstWrongPage(file, layout, 1), undefined);
});

test('in place, of several files none is marked when one of them cannot be', async (t) => {
  const folder = await temporaryFolder(t);
  const from = [join(folder, 'a.mem'), join(folder, 'b.mem')];
  const to = [join(folder, 'a.waiting'), join(folder, 'b.waiting')];
  for (const path of from) writeMemoryFile(path, OLD, 1);
  for (const path of to) writeMemoryFile(path, OLD, 2);
  symlinkSync('nowhere', `${to[1]}.incomplete`);
  const { received } = await attempt({ from, to, receive: { inPlace: true } });
  t.is(codeOf(received), 'E_WRITE', messageOf(received));
  for (const path of to) t.is(firstWrongPage(path, OLD, 2), undefined);
  t.deepEqual(readdirSync(folder).sort(), ['a.mem', 'a.waiting', 'b.mem', 'b.waiting', 'b.waiting.incomplete']);
});
