import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import { ErrorCode } from '@ballast/shared/errors';
import { QmpClient, QmpRefusal } from '@ballast/shared/qmp';

/* What a monitor may do wrong, by one that does it. The real one is in every test of test/qemu and test/live. */

const GREETING = '{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}\r\n';

/** A monitor that greets, agrees, and then answers each command as the test says. */
async function monitor(
  t: ExecutionContext,
  answer: (command: string, id: number, socket: Socket) => void,
  greeting = GREETING,
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'ballast-qmp-'));
  const path = join(folder, 'qmp');
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write(greeting);
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.split('\n').filter((part) => part !== '')) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        if (execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${id}}\n`);
        else answer(execute, id, socket);
      }
    });
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(async () => {
    server.close();
    await rm(folder, { recursive: true, force: true });
  });
  return path;
}

const QMP = { code: ErrorCode.QMP };

test('answers find their commands in any order, among events and in pieces', async (t) => {
  const asked: number[] = [];
  const path = await monitor(t, (_command, id, socket) => {
    asked.push(id);
    if (asked.length < 2) return;
    const [first = 0, second = 0] = asked;
    const text = `{"event": "STOP", "timestamp": {}}\n{"return": "second", "id": ${second}}\r\n{"return": "first", "id": ${first}}\n`;
    for (const character of text) socket.write(character);
  });
  const qmp = await QmpClient.connect(path);
  t.deepEqual(await Promise.all([qmp.execute('one'), qmp.execute('two')]), ['first', 'second']);
  qmp.close();
});

test('who listens is known', async (t) => {
  const path = await monitor(t, () => undefined);
  const qmp = await QmpClient.connect(path);
  t.is(qmp.peer?.pid, process.pid);
  qmp.close();
});

test('a refusal has QEMU’s own words, and the next command works', async (t) => {
  const path = await monitor(t, (command, id, socket) => {
    socket.write(
      command === 'stop'
        ? `{"error": {"class": "GenericError", "desc": "not now"}, "id": ${id}}\n`
        : `{"return": 1, "id": ${id}}\n`,
    );
  });
  const qmp = await QmpClient.connect(path);
  const error = await t.throwsAsync(qmp.execute('stop'), { ...QMP, message: /refused 'stop': not now/ });
  t.true(error.cause instanceof QmpRefusal);
  t.is(await qmp.execute('cont'), 1);
  qmp.close();
});

test('a command without an answer fails in time', async (t) => {
  const path = await monitor(t, () => undefined);
  const qmp = await QmpClient.connect(path);
  await t.throwsAsync(qmp.execute('stop', {}, 100), { ...QMP, message: /did not answer 'stop' within 0.1 s/ });
  qmp.close();
});

test('a monitor that does not greet is given up, with what may be the reason', async (t) => {
  const path = await monitor(t, () => undefined, '');
  await t.throwsAsync(QmpClient.connect(path, 100), { ...QMP, message: /serves one client at a time/ });
});

test('who waits for a greeting can be interrupted', async (t) => {
  const path = await monitor(t, () => undefined, '');
  const controller = new AbortController();
  const connecting = QmpClient.connect(path, 60_000, controller.signal);
  setTimeout(() => {
    controller.abort();
  }, 100);
  await t.throwsAsync(connecting, { code: ErrorCode.ABORTED });
  await t.throwsAsync(QmpClient.connect(path, 60_000, controller.signal), { code: ErrorCode.ABORTED });
});

for (const [what, greeting] of [
  ['a human monitor', 'QEMU 7.2.22 monitor - type help for more information\n(qemu) '],
  ['text that is not JSON', '{"QMP": \n'],
  ['JSON that is no object', '[1, 2]\n'],
] as const) {
  test(`${what} is not taken for a monitor of QEMU`, async (t) => {
    const path = await monitor(t, () => undefined, greeting);
    await t.throwsAsync(QmpClient.connect(path, 5000), { ...QMP, message: /not what QEMU says/ });
  });
}

test('a line without end is given up before it fills the memory', async (t) => {
  const path = await monitor(t, (_command, _id, socket) => {
    const piece = 'x'.repeat(1 << 20);
    const pour = (): void => {
      if (!socket.destroyed) socket.write(piece, pour);
    };
    pour();
  });
  const qmp = await QmpClient.connect(path);
  await t.throwsAsync(qmp.execute('query-status'), { ...QMP, message: /a line of more than 8388608 characters/ });
});

test('when QEMU ends, what waits and what comes later fails', async (t) => {
  const path = await monitor(t, (_command, _id, socket) => {
    socket.destroy();
  });
  const qmp = await QmpClient.connect(path);
  await t.throwsAsync(qmp.execute('quit'), { ...QMP, message: /QEMU closed it, or ended/ });
  await t.throwsAsync(qmp.execute('stop'), QMP);
  t.is(qmp.failure?.code, ErrorCode.QMP);
});

test('a socket that nobody listens at any more is named as such', async (t) => {
  await t.throwsAsync(QmpClient.connect('/nowhere/qmp'), { ...QMP, message: /there is no monitor socket/ });
});
