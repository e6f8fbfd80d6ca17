import { existsSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Fill, PAGE, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { Program, receiverProgram } from '../support/programs.js';
import { Proxy } from './proxy.js';
import { MIB, randomNumbers, scene, takesPages } from './scenes.js';

/** 256 MiB of data, and holes between. */
const LAYOUT: Layout = Array.from({ length: 16 }, () => [
  { fill: Fill.data, pages: 4096 },
  { fill: Fill.hole, pages: 512 },
]).flat();
const DATA = 256 * MIB;

/**
 * What may pass the wire: the data once and its tables; for each kill what was on its way (up to 32 MiB in the kernel of
 * a receiver that gets no turn, and what the programs hold), and what the destination tells again about all that it holds.
 */
function wireLimit(kills: number): number {
  return DATA * (1.01 + 0.03 * kills) + 40 * MIB * kills;
}

function listenAt(t: ExecutionContext, copy: string, port: number): Program {
  return Program.receiver(t, [copy, '--listen', `127.0.0.1:${port}`, '--json']);
}

test.serial('a sender that is killed and started again goes on from what the receiver has', async (t) => {
  const { source, copy } = await scene(t, LAYOUT);
  const { receiver, address } = await receiverProgram(t, [copy]);
  const proxy = await Proxy.open(t, address);
  const first = Program.sender(t, [source, '--to', proxy.to]);
  await proxy.passed(100 * MIB);
  first.kill('SIGKILL');
  await first.ended;
  const second = await Program.sender(t, [source, '--to', proxy.to, '--json']).ended;
  t.is(second.status, 0, second.stderr);
  t.is((await receiver.ended).status, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  t.true(proxy.bytes <= wireLimit(1), `${proxy.bytes} on the wire`);
});

test.serial('a receiver that is killed and started again with the same arguments is found by the sender', async (t) => {
  const { source, copy } = await scene(t, LAYOUT);
  const { receiver, to, address } = await receiverProgram(t, [copy]);
  const sender = Program.sender(t, [source, '--to', to, '--json']);
  await sender.event('progress');
  receiver.kill('SIGKILL');
  await receiver.ended;
  t.false(existsSync(copy));
  await sender.event('retry');
  const again = listenAt(t, copy, address.port);
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.is((await again.ended).status, 0);
  t.is((await again.event('connected'))['resumes'], true);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  takesPages(t, copy, DATA / PAGE);
});

test.serial('a receiver that is killed in place leaves a marker, and goes on from there', async (t) => {
  const { source, copy } = await scene(t, LAYOUT);
  writeMemoryFile(copy, [{ fill: Fill.speck, pages: 16 * 4608 }]);
  const { receiver, address } = await receiverProgram(t, [copy, '--in-place']);
  const proxy = await Proxy.open(t, address);
  const sender = Program.sender(t, [source, '--to', proxy.to, '--json']);
  await proxy.passed(150 * MIB);
  receiver.kill('SIGKILL');
  await receiver.ended;
  t.true(existsSync(`${copy}.incomplete`));
  const again = await receiverProgram(t, [copy, '--in-place']);
  proxy.target = again.address;
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.is((await again.receiver.ended).status, 0);
  t.false(existsSync(`${copy}.incomplete`));
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  takesPages(t, copy, DATA / PAGE);
  t.true(proxy.bytes <= wireLimit(1), `${proxy.bytes} on the wire`);
});

test.serial('a sender that is killed again and again gets there', async (t) => {
  const kills = 4;
  const random = randomNumbers(3);
  const { source, copy } = await scene(t, LAYOUT);
  const { receiver, address } = await receiverProgram(t, [copy]);
  const proxy = await Proxy.open(t, address);
  for (let kill = 0; kill < kills; kill++) {
    const sender = Program.sender(t, [source, '--to', proxy.to]);
    await proxy.passed(proxy.bytesToReceiver + random(DATA / kills - 16 * MIB));
    sender.kill('SIGKILL');
    await sender.ended;
    t.false(existsSync(copy));
  }
  const last = await Program.sender(t, [source, '--to', proxy.to]).ended;
  t.is(last.status, 0, last.stderr);
  t.is((await receiver.ended).status, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  t.true(proxy.bytes <= wireLimit(kills), `${proxy.bytes} on the wire`);
});

test.serial('a receiver that is killed again and again gets there', async (t) => {
  const kills = 4;
  const random = randomNumbers(5);
  const { source, copy } = await scene(t, LAYOUT);
  let { receiver, address } = await receiverProgram(t, [copy]);
  const proxy = await Proxy.open(t, address);
  const sender = Program.sender(t, [source, '--to', proxy.to]);
  for (let kill = 0; kill < kills; kill++) {
    await proxy.passed(proxy.bytesToReceiver + random(DATA / kills - 16 * MIB));
    receiver.kill('SIGKILL');
    await receiver.ended;
    t.false(existsSync(copy));
    ({ receiver, address } = await receiverProgram(t, [copy]));
    proxy.target = address;
  }
  const sent = await sender.ended;
  t.is(sent.status, 0, sent.stderr);
  t.is((await receiver.ended).status, 0);
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  t.true(proxy.bytes <= wireLimit(kills), `${proxy.bytes} on the wire`);
});
