import { chown, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execFileSync } from 'node:child_process';
import test, { type ExecutionContext } from 'ava';
import { MoveStage, readRecord, recordPath, writeRecord, type MoveRecord } from '@ballast/sender/record';

/* The record of a move says what is done to a guest: it is nobody else's to write, and no way to other files. */

const RECORD: MoveRecord = {
  ...{ format: 1, stage: MoveStage.stopped, qmp: '/run/guest.qmp', runs: true, sourceAfter: 'pause' },
  ...{ qemu: { pid: 2, start: '1' }, sender: { pid: 3, start: '1' }, settings: { capabilities: {}, parameters: {} } },
  ...{ to: { host: '127.0.0.1', port: 1 }, session: '00'.repeat(16), regions: [4096] },
};

async function recordOf(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'ballast-record-'));
  t.teardown(async () => rm(folder, { recursive: true, force: true }));
  return join(folder, 'record.json');
}

test('a link in the place of what becomes the record is not followed', async (t) => {
  const path = await recordOf(t);
  const precious = `${path}.precious`;
  await writeFile(precious, 'precious');
  await symlink(precious, `${path}.${process.pid}`);
  writeRecord(path, RECORD);
  t.is(await readFile(precious, 'utf8'), 'precious');
  t.deepEqual(readRecord(path), RECORD);
});

test('a record of another user is not believed', async (t) => {
  if (process.geteuid?.() !== 0) {
    t.pass('only root may give a file away');
    return;
  }
  const path = await recordOf(t);
  writeRecord(path, RECORD);
  await chown(path, 65534, 65534);
  t.throws(() => readRecord(path), { code: 'E_READ', message: /belongs to another user \(65534\)/ });
});

test('a pipe in the place of a record is refused instead of waited for', async (t) => {
  const path = await recordOf(t);
  execFileSync('mkfifo', [path]);
  t.throws(() => readRecord(path), { code: 'E_BAD_FILE', message: /is no record of a move/ });
});

test('the folder of a login, which goes with the last one, keeps no record of root', (t) => {
  const before = process.env['XDG_RUNTIME_DIR'];
  t.teardown(() => {
    if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
    else process.env['XDG_RUNTIME_DIR'] = before;
  });
  process.env['XDG_RUNTIME_DIR'] = '/run/user/0';
  t.is(dirname(recordPath('/run/guest.qmp')), process.getuid?.() === 0 ? '/run/ballast' : '/run/user/0/ballast');
});
