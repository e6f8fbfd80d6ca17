import { execFile } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { LeafDigester } from '@ballast/sender/leaf-digests';
import { MemorySource } from '@ballast/sender/memory-source';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { ExtentSet } from '@ballast/shared/memory';
import test from 'ava';
import { temporaryFolder } from '../support/folder.js';

const run = promisify(execFile);

/** A hole that is read as if it were none: seconds of work that take no memory. */
const BYTES = 64 * 2 ** 30;

test('a pass over memory that nobody wants any more ends at once, with all of its threads', async (t) => {
  const path = join(await temporaryFolder(t), 'guest.mem');
  writeFileSync(path, '');
  truncateSync(path, BYTES);
  const source = MemorySource.open([path]);
  const digester = new LeafDigester(source, 2);
  t.teardown(async () => {
    await digester.close();
    source.close();
  });
  const scan = ExtentSet.whole(BYTES);
  const pass = digester.digest([scan], false);
  const reason = new BallastError(ErrorCode.CONNECTION_LOST, 'the connection is gone');
  await sleep(300);
  const stopped = performance.now();
  digester.stop(reason);
  t.is(await t.throwsAsync(pass), reason);
  t.true(performance.now() - stopped < 1000);

  // The next pass knows nothing of it.
  const again = await digester.digest([ExtentSet.whole(2 ** 20)], false);
  t.is([...again.leavesOf(0)].length, 16);
});

test('threads that are not wanted any more while they start end, and nothing else does', async (t) => {
  // Programs of their own: what is wrong here ends the process.
  const module = import.meta.resolve('@ballast/sender/leaf-digests');
  const script = `
    import { setTimeout as sleep } from 'node:timers/promises';
    const { LeafDigester } = await import(${JSON.stringify(module)});
    for (let n = 0; n < 25; n++) {
      const digester = new LeafDigester({ regions: [] }, 5);
      await sleep(10 + 4 * n);
      await digester.close();
    }`;
  for (let n = 0; n < 3; n++) {
    await t.notThrowsAsync(run(process.execPath, ['--input-type=module', '--eval', script]));
  }
});
