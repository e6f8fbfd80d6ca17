import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import plain, { type ExecutionContext } from 'ava';
import { receiveMemory } from '@ballast/receiver';
import { sendMemory } from '@ballast/sender';
import { ErrorCode } from '@ballast/shared/errors';
import type { ReceiveEvent } from '@ballast/shared/events';
import { Dialect, SESSION_SIZE } from '@ballast/shared/protocol';
import { dial, type Address } from '@ballast/shared/transport';
import { Proxy, doAt, type Fault } from '../faults/proxy.js';
import { guestTest } from '../qemu/guest-test.js';
import { poll } from '../qemu/wait.js';
import { temporaryFolder } from '../support/folder.js';
import { Scene } from './scene.js';

/* "What became of that guest?", asked of a receiver that knows nothing of it: it waits for somebody else by now. */

const test = await guestTest();

const MIB = 2 ** 20;

/** Kills both programs at the commit. @returns the record of the move */
async function killedAtCommit(t: ExecutionContext, scene: Scene): Promise<string> {
  const { receiver, port } = await scene.receive();
  const victim: { sender?: ReturnType<Scene['send']> } = {};
  const kill = doAt('commit', async () => {
    receiver.kill('SIGKILL');
    victim.sender?.kill('SIGKILL');
    proxy.cut();
    await Promise.all([receiver.ended(), victim.sender?.ended()]);
  });
  const proxy = await Proxy.open(t, { host: '127.0.0.1', port }, () => ({ toReceiver: [kill] }));
  const record = join(scene.folder, 'record.json');
  victim.sender = scene.send(proxy.to, { args: ['--record', record] });
  await victim.sender.ended();
  return record;
}

test('a receiver that waits for a guest is asked about another move, and takes its guest in all the same', async (t, image) => {
  t.timeout(120_000);
  const scene = await Scene.start(t, image);
  const record = await killedAtCommit(t, scene);
  await scene.startWaiting();
  const { receiver, port } = await scene.receive();
  // As if it listened where the other did.
  const move = JSON.parse(readFileSync(record, 'utf8')) as { to: Address };
  writeFileSync(record, JSON.stringify({ ...move, to: { host: '127.0.0.1', port } }));

  const recover = ['recover', '--qmp', scene.source.programQmpPath, '--record', record];
  const { status, error } = await scene.ballastSend(...recover).ended();
  t.is(status, 1);
  t.is(error?.['code'], 'E_UNACKNOWLEDGED');
  const { code, message } = await receiver.event('warning', 5000);
  t.is(code, 'E_UNACKNOWLEDGED');
  t.regex(String(message), /asked what became of a move that is not known here/);

  await scene.ballastSend(...recover, '--destination', 'gone').succeeded();
  const sender = scene.send(`127.0.0.1:${port}`);
  await Promise.all([sender.succeeded(), receiver.succeeded()]);
  await scene.assertRunsThere(t);
});

plain('a receiver that waits for files, or for its sender to come back, is not ended by such a question', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, destination] = [join(folder, 'source'), join(folder, 'destination')];
  writeFileSync(source, randomBytes(8 * MIB));
  const events: ReceiveEvent[] = [];
  let listening: (address: Address) => void = () => undefined;
  const address = new Promise<Address>((resolve) => {
    listening = resolve;
  });
  const received = receiveMemory({
    files: [destination],
    listen: { host: '127.0.0.1', port: 0 },
    onEvent: (event) => {
      events.push(event);
      if (event.event === 'listening') listening(event);
    },
  });
  const to = await address;
  const ask = async (): Promise<void> => {
    const { socket, start } = dial({ ...to, tls: undefined, channel: undefined });
    await once(socket, 'connect');
    const connection = start({ timeoutMs: 5000, peer: 'the receiver' });
    await connection.sendControl({
      kind: 'hello',
      session: randomBytes(SESSION_SIZE),
      regions: [16 * MIB],
      dialect: Dialect.ranges,
      compress: 'none',
      dataBytesAtMost: 0,
      channels: 0,
      live: true,
    });
    const answer = connection.expect('published-before', 'never-published', 'welcome');
    await t.throwsAsync(answer, { code: ErrorCode.MISMATCH });
    await connection.close();
  };

  await ask();
  let asked: () => void = () => undefined;
  const question = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const asking = doAt('end', async () => {
    proxy.cut();
    await poll('a receiver that waits', 5000, async () =>
      Promise.resolve(events.find(({ event }) => event === 'retry')),
    );
    await ask();
    asked();
  });
  const afterwards: Fault = {
    async pass(chunk) {
      await question;
      return [chunk];
    },
  };
  const proxy = await Proxy.open(t, to, (connection) => ({ toReceiver: [connection === 0 ? asking : afterwards] }));
  const [host = '', port = ''] = proxy.to.split(':');
  const sent = await sendMemory({ files: [source], to: { host, port: Number(port) }, channels: 1 });
  t.is((await received).root, sent.root);
  t.deepEqual(
    events.filter(({ event }) => event === 'warning' || event === 'retry').map(({ event }) => event),
    ['warning', 'retry', 'warning'],
  );
});
