import { execFile } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { STRATEGY_NAMES, sendMemory } from '@ballast/sender';
import { temporaryFolder } from '../support/folder.js';
import {
  Fill,
  PAGE,
  allocatedPages,
  contentsOf,
  firstWrongPage,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import {
  makeExt4,
  mount,
  reserveHugePages,
  testUnless,
  whyNoHugePages,
  whyNoLoop,
  whyNoMount,
  whyNoTracing,
} from '../support/mounts.js';
import { receiverProgram, runSender } from '../support/programs.js';
import { attempt, codeOf, messageOf, orBallastError, transfer } from '../support/transfer.js';
import { Wire, whileHeld } from '../support/wire.js';

const MIB = 2 ** 20;
const HUGE_PAGE = 2 * MIB;
const HUGE_PAGES = 8;

const onTmpfs = testUnless(await whyNoMount('tmpfs', 'size=1m'));
const onTraced = testUnless(await whyNoTracing());
const onExt4 = testUnless(await whyNoLoop());
const onHugePages = testUnless(await whyNoHugePages(HUGE_PAGES));

/** A source on the usual filesystem, and a folder for another one to be mounted on. */
async function places(t: ExecutionContext): Promise<{ source: string; mounted: string; copy: string; folder: string }> {
  const folder = await temporaryFolder(t, 192 * MIB);
  const mounted = join(folder, 'mounted');
  mkdirSync(mounted);
  return { folder, source: join(folder, 'guest.mem'), mounted, copy: join(mounted, 'copy.mem') };
}

/** 40 MiB of data. */
const LARGE: Layout = [
  { fill: Fill.data, pages: 10_240 },
  { fill: Fill.hole, pages: 100 },
];

onTmpfs('memory that cannot fit the filesystem is refused before a page is sent', async (t) => {
  const { source, mounted, copy } = await places(t);
  await mount(t, mounted, 'tmpfs', 'size=8m');
  writeMemoryFile(source, LARGE);
  const { sent, received } = await attempt({ from: [source], to: [copy] });
  t.is(codeOf(received), 'E_NO_SPACE', messageOf(received));
  t.is(codeOf(sent), 'E_NO_SPACE', messageOf(sent));
  t.regex(messageOf(received), /8388608 bytes free and the memory may need 41943040/);
  t.false(existsSync(copy));
  t.false(existsSync(`${copy}.partial`));
});

onTmpfs('a filesystem that is read-only is refused with what to do about it', async (t) => {
  const { source, mounted, copy } = await places(t);
  await mount(t, mounted, 'tmpfs', 'ro');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 16 }]);
  const { received } = await attempt({ from: [source], to: [copy] });
  t.is(codeOf(received), 'E_WRITE', messageOf(received));
  t.regex(messageOf(received), /\(EROFS\): the filesystem is read-only; mount it for writing/);
});

onTmpfs('memory files on two filesystems fit when each has room for its own', async (t) => {
  const { folder, source, mounted, copy } = await places(t);
  await mount(t, mounted, 'tmpfs', 'size=2m');
  const small = join(folder, 'small.mem');
  const large = join(folder, 'large.copy');
  writeMemoryFile(small, [{ fill: Fill.data, pages: 256 }]);
  writeMemoryFile(source, LARGE);
  await transfer({ from: [small, source], to: [copy, large] });
  t.is(firstWrongPage(large, LARGE), undefined);

  const { received } = await attempt({
    from: [source, small],
    to: [copy, large],
    receive: { force: true },
  });
  t.is(codeOf(received), 'E_NO_SPACE', messageOf(received));
  t.regex(messageOf(received), /mounted has \d+ bytes free and the memory may need 42991616;/);
});

onTmpfs('holes need no room: a large memory with little in it fits a small filesystem', async (t) => {
  const { source, mounted, copy } = await places(t);
  await mount(t, mounted, 'tmpfs', 'size=8m');
  const layout: Layout = [
    { fill: Fill.hole, pages: 100_000 },
    { fill: Fill.data, pages: 1500 },
  ];
  writeMemoryFile(source, layout);
  await transfer({ from: [source], to: [copy] });
  t.is(firstWrongPage(copy, layout), undefined);
});

// Four channels store what comes through mappings, where a filesystem without room would be a signal.
for (const [over, channels] of [
  ['one connection', 1],
  ['four channels', 4],
] as const) {
  onTmpfs(`a filesystem that fills up over ${over} is a clean error when the check was waived`, async (t) => {
    const { source, mounted, copy } = await places(t);
    await mount(t, mounted, 'tmpfs', 'size=8m');
    writeMemoryFile(source, LARGE);
    const receive = { checkSpace: false };
    const { sent, received } = await attempt({ from: [source], to: [copy], send: { channels }, receive });
    t.is(codeOf(received), 'E_NO_SPACE', messageOf(received));
    t.is(codeOf(sent), 'E_NO_SPACE', messageOf(sent));
    t.false(existsSync(copy));
  });
}

onTmpfs('a filesystem that someone else fills in the middle is a clean error', async (t) => {
  const { source, mounted, copy } = await places(t);
  await mount(t, mounted, 'tmpfs', 'size=48m');
  writeMemoryFile(source, LARGE);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: whileHeld(t, MIB, () => {
      writeFileSync(join(mounted, 'other'), Buffer.alloc(20 * MIB, 1));
    }),
  });
  t.is(codeOf(received), 'E_NO_SPACE', messageOf(received));
  t.is(codeOf(sent), 'E_NO_SPACE', messageOf(sent));
  t.false(existsSync(copy));
  t.is(readFileSync(join(mounted, 'other')).length, 20 * MIB);
});

const SPARSE: Layout = [
  { fill: Fill.hole, pages: 300 },
  { fill: Fill.data, pages: 600 },
  { fill: Fill.zero, pages: 100 },
  { fill: Fill.hole, pages: 4000 },
  { fill: Fill.speck, pages: 1 },
  { fill: Fill.hole, pages: 99 },
];
const SPARSE_DATA = 601;

onTmpfs('in place, a filesystem of which the memory has all the room is enough', async (t) => {
  const { source, mounted, copy } = await places(t);
  await mount(t, mounted, 'tmpfs', 'size=4m');
  const layout: Layout = [{ fill: Fill.data, pages: 1024 }];
  writeMemoryFile(source, layout, 1);
  writeMemoryFile(copy, layout, 2);
  await transfer({ from: [source], to: [copy], receive: { inPlace: true } });
  t.is(firstWrongPage(copy, layout, 1), undefined);
  t.deepEqual(readdirSync(mounted), ['copy.mem']);
});

onExt4('memory arrives on ext4, and its holes cost no blocks', async (t) => {
  const { folder, source, mounted, copy } = await places(t);
  await makeExt4(join(folder, 'disk'), 48 * MIB);
  await mount(t, mounted, 'ext4', 'loop', join(folder, 'disk'));
  writeMemoryFile(source, SPARSE);
  for (const strategy of STRATEGY_NAMES) {
    const { sent, received } = await transfer({
      from: [source],
      to: [copy],
      send: { strategy },
      receive: { force: true },
    });
    t.is(sent.root, received.root);
    t.is(firstWrongPage(copy, SPARSE), undefined);
    // A few blocks for ext4's own index of a file with holes.
    t.true(allocatedPages(copy) <= SPARSE_DATA + 4, `${strategy}: ${allocatedPages(copy)} pages`);
  }
});

onExt4('in place on ext4, old pages become holes', async (t) => {
  const { folder, source, mounted, copy } = await places(t);
  await makeExt4(join(folder, 'disk'), 64 * MIB);
  await mount(t, mounted, 'ext4', 'loop', join(folder, 'disk'));
  writeMemoryFile(source, SPARSE, 1);
  writeMemoryFile(copy, [{ fill: Fill.data, pages: 5100 }], 2);
  await transfer({ from: [source], to: [copy], receive: { inPlace: true } });
  t.is(firstWrongPage(copy, SPARSE, 1), undefined);
  t.true(allocatedPages(copy) <= SPARSE_DATA + 4, `${allocatedPages(copy)} pages`);
});

onExt4('a full ext4 is a clean error', async (t) => {
  const { folder, source, mounted, copy } = await places(t);
  await makeExt4(join(folder, 'disk'), 16 * MIB);
  await mount(t, mounted, 'ext4', 'loop', join(folder, 'disk'));
  writeMemoryFile(source, LARGE);
  const { sent, received } = await attempt({ from: [source], to: [copy], receive: { checkSpace: false } });
  t.is(codeOf(received), 'E_NO_SPACE', messageOf(received));
  t.is(codeOf(sent), 'E_NO_SPACE', messageOf(sent));
  t.false(existsSync(copy));
});

/** Eight huge pages, of which four hold something. */
const IN_HUGE_PAGES: Layout = [
  { fill: Fill.data, pages: 3 },
  { fill: Fill.hole, pages: 1021 },
  { fill: Fill.data, pages: 700 },
  { fill: Fill.hole, pages: 2371 },
  { fill: Fill.speck, pages: 1 },
];

onHugePages('memory arrives on hugetlbfs, in as few huge pages as it takes', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', `pagesize=2M,size=${HUGE_PAGES * HUGE_PAGE}`);
  writeMemoryFile(source, IN_HUGE_PAGES);
  for (const strategy of STRATEGY_NAMES) {
    const { sent, received } = await transfer({
      from: [source],
      to: [copy],
      send: { strategy },
      receive: { force: true },
    });
    t.is(sent.root, received.root);
    t.true(readFileSync(copy).equals(contentsOf(IN_HUGE_PAGES)), strategy);
    t.is((allocatedPages(copy) * PAGE) / HUGE_PAGE, 4, strategy);
  }
});

onHugePages('memory arrives on a hugetlbfs that was mounted without a limit', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', 'pagesize=2M');
  writeMemoryFile(source, IN_HUGE_PAGES);
  const { sent, received } = await transfer({ from: [source], to: [copy] });
  t.is(sent.root, received.root);
  t.true(readFileSync(copy).equals(contentsOf(IN_HUGE_PAGES)));
});

onHugePages('in place on hugetlbfs, the file gets the new memory', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', `pagesize=2M,size=${HUGE_PAGES * HUGE_PAGE}`);
  // The old memory, in every huge page, gets there as any memory does.
  writeMemoryFile(source, [{ fill: Fill.data, pages: 4096 }], 2);
  await transfer({ from: [source], to: [copy] });
  writeMemoryFile(source, IN_HUGE_PAGES, 1);
  const { sent, received } = await transfer({ from: [source], to: [copy], receive: { inPlace: true } });
  t.is(sent.root, received.root);
  t.true(readFileSync(copy).equals(contentsOf(IN_HUGE_PAGES, 1)));
  t.true((allocatedPages(copy) * PAGE) / HUGE_PAGE < HUGE_PAGES);
});

onHugePages('in place on hugetlbfs, a huge page in which all is empty stays a hole', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', 'pagesize=2M');
  // Told about in runs of which none is a whole huge page.
  const layout: Layout = Array.from({ length: 32 }, () => [
    { fill: Fill.hole, pages: 256 },
    { fill: Fill.zero, pages: 256 },
  ]).flat();
  writeMemoryFile(source, layout);
  writeFileSync(copy, '');
  truncateSync(copy, 64 * MIB);
  await transfer({ from: [source], to: [copy], receive: { inPlace: true } });
  t.is(allocatedPages(copy), 0);
});

onHugePages('little in a large memory on hugetlbfs takes little time, although that tells of no holes', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', 'pagesize=2M');
  writeMemoryFile(source, [{ fill: Fill.data, pages: 600 }]);
  // To read so much of nothing takes a core half a minute and more.
  truncateSync(source, 2 ** 38);
  const { received } = await transfer({ from: [source], to: [copy] });
  t.true(received.seconds < 10, `${received.seconds} s`);
});

onHugePages('a pool of huge pages that runs out is a clean error', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', `pagesize=2M,size=${3 * HUGE_PAGE}`);
  writeMemoryFile(source, [{ fill: Fill.data, pages: 2560 }]);
  const { sent, received } = await attempt({ from: [source], to: [copy], receive: { checkSpace: false } });
  t.is(codeOf(received), 'E_NO_SPACE', messageOf(received));
  t.is(codeOf(sent), 'E_NO_SPACE', messageOf(sent));
  t.false(existsSync(copy));
});

onHugePages('memory that is no multiple of the huge page is refused on hugetlbfs', async (t) => {
  const { source, mounted, copy } = await places(t);
  if (!(await reserveHugePages(t, HUGE_PAGES))) return t.fail('the huge pages that were there a moment ago are gone');
  await mount(t, mounted, 'hugetlbfs', `pagesize=2M,size=${HUGE_PAGES * HUGE_PAGE}`);
  writeMemoryFile(source, [{ fill: Fill.data, pages: 513 }]);
  const { sent, received } = await attempt({ from: [source], to: [copy] });
  t.is(codeOf(received), 'E_BAD_FILE', messageOf(received));
  t.is(codeOf(sent), 'E_BAD_FILE', messageOf(sent));
  t.false(existsSync(copy));
});

onExt4('in place, the note outlives a crash of the machine if anything of the new memory does', async (t) => {
  const { folder, source, mounted, copy } = await places(t);
  const [disk, after, restarted] = [join(folder, 'disk'), join(folder, 'after'), join(folder, 'restarted')];
  await makeExt4(disk, 48 * MIB);
  await mount(t, mounted, 'ext4', 'loop', disk);
  const layout: Layout = [{ fill: Fill.data, pages: 6000 }];
  writeMemoryFile(source, layout, 1);
  writeMemoryFile(copy, layout, 2);
  await promisify(execFile)('sync', ['--file-system', copy]);
  await transfer({
    from: [source],
    to: [copy],
    receive: { inPlace: true },
    via: whileHeld(t, 4 << 20, async () => {
      while (firstWrongPage(copy, layout, 2) === undefined) await sleep(10);
      // The kernel may write pages back whenever it likes, and what is on the disk then is all that is left.
      await promisify(execFile)('sync', ['--data', copy]);
      await promisify(execFile)('cp', [disk, after]);
    }),
  });
  mkdirSync(restarted);
  await mount(t, restarted, 'ext4', 'loop', after);
  t.not(firstWrongPage(join(restarted, 'copy.mem'), layout, 2), undefined, 'some of it is on the disk');
  t.true(existsSync(join(restarted, 'copy.mem.incomplete')));
});

onExt4('a file gets its name in a folder that may be written and not be read', async (t) => {
  const { folder, source, mounted, copy } = await places(t);
  await makeExt4(join(folder, 'disk'), 16 * MIB);
  await mount(t, mounted, 'ext4', 'loop', join(folder, 'disk'));
  chmodSync(folder, 0o711);
  chmodSync(mounted, 0o333);
  writeMemoryFile(source, [{ fill: Fill.data, pages: 100 }]);
  // Another user cannot write this one's coverage.
  const env = { ...process.env, NODE_V8_COVERAGE: '' };
  const { receiver, to } = await receiverProgram(t, [copy], { uid: 65534, gid: 65534, env });
  const sent = await runSender(t, [source, '--to', to, '--retry', '0']);
  t.is(sent.status, 0, sent.stderr);
  const { status, stderr } = await receiver.ended;
  t.is(status, 0, stderr);
  t.deepEqual(readdirSync(mounted).sort(), ['copy.mem', 'lost+found']);
});

onTraced(
  'a filesystem that cannot rename without replacing gives names all the same, and replaces nothing',
  async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    writeMemoryFile(source, LARGE);
    // As NFS answers.
    const within = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'inject=renameat2:error=EINVAL'];
    for (const force of [false, true]) {
      const { receiver, to } = await receiverProgram(t, [copy, ...(force ? ['--force'] : [])], { within });
      const sent = await runSender(t, [source, '--to', to, '--retry', '0']);
      t.is(sent.status, 0, sent.stderr);
      const { status, stderr } = await receiver.ended;
      t.is(status, 0, stderr);
      t.is(firstWrongPage(copy, LARGE), undefined);
      t.deepEqual(readdirSync(folder).sort(), ['copy.mem', 'guest.mem']);
    }

    rmSync(copy);
    const { receiver, to, address } = await receiverProgram(t, [copy], { within });
    const wire = await Wire.open(t, address, MIB);
    wire.whenHeld(() => {
      writeFileSync(copy, 'newcomer');
      wire.release();
    });
    t.is(codeOf(await orBallastError(sendMemory({ files: [source], to: wire.address, retryMs: 0 }))), 'E_EXISTS', to);
    t.is((await receiver.ended).status, 1);
    t.is(readFileSync(copy, 'utf8'), 'newcomer');
  },
);
