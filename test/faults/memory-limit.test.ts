import { existsSync } from 'node:fs';
import test from 'ava';
import { countsEveryPage } from '../support/folder.js';
import { Fill, firstWrongPage, type Layout } from '../support/memory-file.js';
import { whyNoMemoryCgroup, withinMemory } from '../support/memory-cgroup.js';
import { Program, receiverProgram } from '../support/programs.js';
import { MIB, scene } from './scenes.js';

/** 256 MiB, twice what the receiver may have. */
const LAYOUT: Layout = [{ fill: Fill.data, pages: 65536 }];
const LIMIT = 128 * MIB;

const missing = await whyNoMemoryCgroup();
const title = "a receiver that reaches its cgroup's memory limit is killed, and one with more room goes on from there";

// Required nowhere: whether there is such a controller is a matter of how the machine was started.
(missing === undefined ? test : test.skip)(missing === undefined ? title : `${title} [${missing}]`, async (t) => {
  const { folder, source, copy, partial } = await scene(t, LAYOUT);
  if (!(await countsEveryPage(folder))) {
    t.log('skipped: only pages of tmpfs count as memory that cannot be taken back');
    t.pass();
    return;
  }
  const { receiver, to, address } = await receiverProgram(t, [copy], { within: await withinMemory(t, LIMIT) });
  const sender = Program.sender(t, [source, '--to', to, '--json']);
  const killed = await receiver.ended;
  t.is(killed.killedBy, 'SIGKILL', killed.stderr);
  t.false(existsSync(copy));
  t.true(existsSync(partial));

  const again = Program.receiver(t, [copy, '--listen', `127.0.0.1:${address.port}`, '--json']);
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.is((await again.ended).status, 0);
  t.is((await again.event('connected'))['resumes'], true);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});
