import test, { type ExecutionContext } from 'ava';
import { FrameType } from '@ballast/shared/protocol';
import { dial, type Connection } from '@ballast/shared/transport';
import { once } from 'node:events';
import type { BallastError } from '@ballast/shared/errors';
import type { Address } from '@ballast/shared/transport';
import { Fill } from '../support/memory-file.js';
import { codeOf, listen } from '../support/transfer.js';
import { sendMemory } from '@ballast/sender';
import { scene } from './scenes.js';

const NOTHING = Buffer.alloc(0);
const FILLER = { type: FrameType.filler, checked: NOTHING, pages: Buffer.alloc(1 << 20, 1) };

async function connectTo(t: ExecutionContext, { host, port }: Address): Promise<Connection> {
  const { socket, ready, start } = dial({ host, port, tls: undefined, channel: undefined });
  await once(socket, ready);
  t.teardown(() => socket.destroy());
  return start({ timeoutMs: 10_000, peer: 'the receiver' });
}

/** What the receiver says when it ends a connection. */
async function refusal(work: Promise<unknown>): Promise<BallastError | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error as BallastError;
  }
}

test('a probe is answered with the bytes that came, and the receiver waits on for its sender', async (t) => {
  const { source, copy } = await scene(t, [{ fill: Fill.data, pages: 64 }], 1);
  const waiting = await listen(t, { files: [copy] });
  for (const frames of [0, 1, 9]) {
    const connection = await connectTo(t, waiting.address);
    await connection.sendControl({ kind: 'probe' });
    await connection.expect('probe-ready');
    for (let n = 0; n < frames; n++) await connection.send(FILLER);
    await connection.sendControl({ kind: 'probe-end' });
    const { bytes } = await connection.expect('probed');
    t.is(bytes, frames << 20);
    await connection.sendControl({ kind: 'goodbye' });
    await connection.close();
  }
  const [sent, received] = await Promise.all([sendMemory({ files: [source], to: waiting.address }), waiting.result]);
  t.is(sent.root, received.root);
});

test('a second probe is told that the receiver is busy, and a sender ends the first', async (t) => {
  const { source, copy } = await scene(t, [{ fill: Fill.data, pages: 64 }], 1);
  const waiting = await listen(t, { files: [copy] });
  const first = await connectTo(t, waiting.address);
  await first.sendControl({ kind: 'probe' });
  await first.expect('probe-ready');
  const second = await connectTo(t, waiting.address);
  await second.sendControl({ kind: 'probe' });
  t.is((await refusal(second.expect('probe-ready')))?.code, 'E_BUSY');
  await sendMemory({ files: [source], to: waiting.address });
  t.is(codeOf(await waiting.result), undefined);
  t.is((await refusal(first.expect('probed')))?.code, 'E_BUSY');
});

test('a probe that sends anything but filler is refused', async (t) => {
  const { copy } = await scene(t, [{ fill: Fill.data, pages: 64 }], 1);
  const abort = new AbortController();
  const waiting = await listen(t, { files: [copy], signal: abort.signal });
  const wrong = [
    async (connection: Connection) => connection.sendControl({ kind: 'commit' }),
    async (connection: Connection) =>
      connection.send({ type: FrameType.whiteouts, count: 1, checked: Buffer.alloc(9) }),
  ];
  for (const send of wrong) {
    const connection = await connectTo(t, waiting.address);
    await connection.sendControl({ kind: 'probe' });
    await connection.expect('probe-ready');
    await send(connection);
    t.is((await refusal(connection.expect('probed')))?.code, 'E_PROTOCOL');
  }
  abort.abort();
  t.is((await refusal(waiting.result))?.code, 'E_ABORTED');
});
