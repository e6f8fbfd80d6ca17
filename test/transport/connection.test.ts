import { once } from 'node:events';
import { createServer } from 'node:net';
import { crc32 } from 'node:zlib';
import test from 'ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { FrameType, HEADER_SIZE, MAX_PAYLOAD, PREAMBLE, decodeControl } from '@ballast/shared/protocol';
import { accept, dial, type Connection, type OutgoingFrame } from '@ballast/shared/transport';
import { READS, controlFrames, greeting, openPair, openWithStranger, pause, settlesWithin } from './pair.js';

const MIB = 1 << 20;
/** What waits in a process that sends: 1 MiB, and the frame that went beyond. */
const MOST_IN_FLIGHT = 2 * MIB + 65536;

/** The same bytes for the same seed, others for others. */
function filled(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed * 2_654_435_761 + 1;
  for (let at = 0; at + 4 <= length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  return bytes;
}

/** Frame `index` of a direction: small and large ones, with and without bytes that its checksum does not cover. */
function frameOf(index: number, direction: number): OutgoingFrame {
  const seed = 1000 * direction + index;
  if (index % 5 === 1) return { type: FrameType.whiteouts, count: 3, checked: filled(27, seed) };
  if (index % 5 === 2)
    return { type: FrameType.freeRanges, base: 2 ** 40, checked: filled((seed * 977) % 65536, seed) };
  const pages = filled(4096 * ((index * 37) % 257), seed);
  return { type: FrameType.leaves, region: index % 64, count: 2, base: index, checked: filled(96, seed + 1), pages };
}

function wholePayload({ checked, pages }: OutgoingFrame): Buffer {
  return pages === undefined ? checked : Buffer.concat([checked, pages]);
}

/** A leaves frame of 1 MiB and a little. */
function largeFrame(seed = 1): OutgoingFrame {
  return { type: FrameType.leaves, count: 1, checked: filled(48, seed), pages: filled(MIB, seed) };
}

/** Sends large frames until the connection fails, and says how. */
async function sendForever(connection: Connection): Promise<BallastError> {
  const frame = largeFrame();
  for (;;) {
    try {
      await connection.send(frame);
    } catch (error) {
      return BallastError.from(error);
    }
  }
}

/** The failure that ends whatever was called. */
async function failureOf(call: Promise<unknown>): Promise<BallastError> {
  try {
    await call;
  } catch (error) {
    return BallastError.from(error);
  }
  throw new Error('it should have failed');
}

/** The messages in what a connection has written, heartbeats left out. */
function messagesIn(bytes: Buffer): unknown[] {
  const messages: unknown[] = [];
  for (let at = PREAMBLE.length; at < bytes.length;) {
    const end = at + HEADER_SIZE + bytes.readUInt32LE(at + 8);
    if (bytes[at] === FrameType.control) messages.push(decodeControl(bytes.subarray(at + HEADER_SIZE, end)));
    at = end;
  }
  return messages.filter((message) => (message as { kind: string }).kind !== 'heartbeat');
}

for (const reads of READS) {
  test(`${reads}: frames arrive intact and in order in both directions while both sides write`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    const count = 100;
    const sendAll = async (connection: Connection, direction: number): Promise<void> => {
      for (let index = 0; index < count; index++) {
        await connection.send(frameOf(index, direction));
        if (index % 10 === 0) await connection.sendControl({ kind: 'resend', leaves: [[direction, index]] });
      }
    };
    const receiveAll = async (connection: Connection, direction: number): Promise<void> => {
      for (let index = 0; index < count; index++) {
        const sent = frameOf(index, direction);
        const { frame } = await connection.next();
        const header = frame?.header;
        t.deepEqual(
          [header?.type, header?.region, header?.count, header?.base],
          [sent.type, sent.region ?? 0, sent.count ?? 0, sent.base ?? 0],
        );
        t.is(crc32(frame?.payload ?? ''), crc32(wholePayload(sent)), `frame ${index}`);
        if (index % 10 === 0) t.deepEqual((await connection.expect('resend')).leaves, [[direction, index]]);
      }
    };
    await Promise.all([sendAll(dialled, 1), sendAll(accepted, 2), receiveAll(accepted, 1), receiveAll(dialled, 2)]);
    // Heartbeats may still be under way in one direction or the other.
    t.true(accepted.bytesIn <= dialled.bytesOut && dialled.bytesOut - accepted.bytesIn < 1000);
    t.true(dialled.bytesIn <= accepted.bytesOut && accepted.bytesOut - dialled.bytesIn < 1000);
  });

  test(`${reads}: the reason of an abort reaches a peer that is busy sending`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    const sender = sendForever(dialled);
    for (let i = 0; i < 5; i++) await accepted.next();
    const aborted = accepted.abort(new BallastError(ErrorCode.NO_SPACE, 'the filesystem is full'));
    const { code, message } = await sender;
    t.is(code, ErrorCode.NO_SPACE);
    t.is(message, 'the receiver says: the filesystem is full');
    await Promise.all([aborted, dialled.close()]);
  });

  test(`${reads}: the reason of an abort reaches a sender that never asked for anything`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    // The side that accepted sends, and never calls next.
    const sender = sendForever(accepted);
    await pause(50);
    const aborted = dialled.abort(new BallastError(ErrorCode.ABORTED, 'interrupted'));
    t.is((await sender).code, ErrorCode.ABORTED);
    await Promise.all([aborted, accepted.close()]);
  });

  test(`${reads}: the reason of an abort reaches a peer that waits for a message`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    const waiting = failureOf(dialled.expect('verified'));
    await accepted.abort(new BallastError(ErrorCode.DIGEST_MISMATCH, 'roots differ'));
    t.is((await waiting).code, ErrorCode.DIGEST_MISMATCH);
  });

  test.serial(`${reads}: an abort ends both sides quickly, and its own side keeps its own reason`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    const started = performance.now();
    const reason = new BallastError(ErrorCode.WRITE, 'the disk is gone');
    await Promise.all([accepted.abort(reason), failureOf(dialled.next()).then(() => dialled.close())]);
    t.true(performance.now() - started < 10_000);
    t.is(accepted.failure, reason);
    t.is(await failureOf(accepted.next()), reason);
    t.is(await failureOf(accepted.send(largeFrame())), reason);
  });

  test.serial(`${reads}: an abort does not wait long for a peer that does not react`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads);
    stranger.pause();
    const started = performance.now();
    await connection.abort(new BallastError(ErrorCode.ABORTED, 'interrupted'));
    t.true(performance.now() - started < 15_000);
  });

  test(`${reads}: a reason longer than a message may be is cut and arrives`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    const waiting = failureOf(dialled.next());
    await accepted.abort(new BallastError(ErrorCode.WRITE, 'x'.repeat(5000)));
    t.is((await waiting).message, `the receiver says: ${'x'.repeat(1024)}`);
  });

  test.serial(`${reads}: a peer that goes silent is a timeout, in about the timeout`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads, 600);
    stranger.write(greeting({ kind: 'commit' }));
    await connection.expect('commit');
    const started = performance.now();
    const { code, message } = await failureOf(connection.next());
    const took = performance.now() - started;
    t.is(code, ErrorCode.TIMEOUT);
    t.regex(message, /the stranger has been silent/);
    t.true(took > 300 && took < 15_000, `took ${took} ms`);
  });

  test(`${reads}: a peer that never says a word is a timeout`, async (t) => {
    const { connection } = await openWithStranger(t, reads, 300);
    t.is((await failureOf(connection.next())).code, ErrorCode.TIMEOUT);
  });

  test(`${reads}: a peer that goes silent is a timeout for a side that only sends, too`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads, 400);
    stranger.pause();
    stranger.write(PREAMBLE);
    t.is((await sendForever(connection)).code, ErrorCode.TIMEOUT);
  });

  test(`${reads}: a frame that never completes is silence, however slowly its bytes come`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads, 500);
    const frame = controlFrames([{ kind: 'abort', code: 'x', message: 'x'.repeat(1000) }]);
    stranger.write(PREAMBLE);
    let at = 0;
    const dribble = setInterval(() => stranger.write(frame.subarray(at, ++at)), 20);
    t.teardown(() => {
      clearInterval(dribble);
    });
    t.is((await failureOf(connection.next())).code, ErrorCode.TIMEOUT);
  });

  test.serial(`${reads}: heartbeats keep an idle connection alive beyond the timeout`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads, { dialledMs: 400, acceptedMs: 400 });
    const verified = accepted.expect('commit');
    await pause(2000);
    t.is(dialled.failure, undefined);
    t.is(accepted.failure, undefined);
    await dialled.sendControl({ kind: 'commit' });
    t.is((await verified).kind, 'commit');
  });

  test.serial(`${reads}: heartbeats of a patient side keep an impatient one from giving up`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads, { dialledMs: 60_000, acceptedMs: 1000 });
    const waiting = accepted.expect('commit');
    await pause(3000);
    await dialled.sendControl({ kind: 'commit' });
    t.is((await waiting).kind, 'commit');
  });

  test.serial(`${reads}: a side that does not read for longer than the timeout does not blame its peer`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads, { acceptedMs: 300 });
    const sending = (async () => {
      for (let i = 0; i < 24; i++) await dialled.send(largeFrame(i));
    })();
    await accepted.next();
    await pause(1500);
    t.is(accepted.failure, undefined);
    for (let i = 1; i < 24; i++) await accepted.next();
    await t.notThrowsAsync(sending);
  });

  test(`${reads}: a peer that closes between frames is a lost connection, once all frames were taken`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads);
    stranger.end(greeting({ kind: 'commit' }, { kind: 'published' }));
    await pause(100);
    t.is((await connection.expect('commit')).kind, 'commit');
    t.is((await connection.expect('published')).kind, 'published');
    t.is((await failureOf(connection.next())).code, ErrorCode.CONNECTION_LOST);
  });

  for (const how of ['closes', 'resets'] as const) {
    test(`${reads}: a peer that ${how} in the middle of a frame is a lost connection`, async (t) => {
      const { connection, stranger, reset } = await openWithStranger(t, reads);
      const bytes = greeting({ kind: 'commit' }, { kind: 'abort', code: 'E_WRITE', message: 'x'.repeat(500) });
      stranger.write(bytes.subarray(0, -100));
      await connection.expect('commit');
      const waiting = failureOf(connection.next());
      if (how === 'closes') stranger.end();
      else reset();
      const { code, message } = await waiting;
      t.is(code, ErrorCode.CONNECTION_LOST);
      t.regex(message, /the connection to the stranger was lost before all was done/);
    });

    test(`${reads}: a peer that ${how} is a lost connection for a side that only sends, too`, async (t) => {
      const { connection, stranger, reset } = await openWithStranger(t, reads);
      stranger.write(PREAMBLE);
      stranger.pause();
      const sending = sendForever(connection);
      await pause(100);
      if (how === 'closes') stranger.destroy();
      else reset();
      t.is((await sending).code, ErrorCode.CONNECTION_LOST);
    });
  }

  test(`${reads}: a peer that is to close, and says more instead, is at fault; one that closes is not`, async (t) => {
    const flood = Array.from({ length: 50 }, () => ({ kind: 'commit' }) as const);
    for (const said of [flood, []]) {
      const { connection, stranger } = await openWithStranger(t, reads);
      stranger.write(greeting(...said));
      if (said.length === 0) {
        stranger.end();
        // Long enough for its end and the socket's to be there before anyone asks.
        await pause(200);
      }
      const closed = connection.closedByPeer();
      if (said.length === 0) await t.notThrowsAsync(closed);
      else t.is((await failureOf(closed)).code, ErrorCode.PROTOCOL);
    }
  });

  test(`${reads}: a peer that closes without a word may have wanted TLS`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads);
    stranger.end();
    const { code, message } = await failureOf(connection.next());
    t.is(code, ErrorCode.CONNECTION_LOST);
    t.regex(message, /without a word; if it uses TLS, so must this side/);
  });

  test.serial(
    `${reads}: a reader that does not read makes the writer wait, with little memory on both sides`,
    async (t) => {
      const { dialled, accepted, socket } = await openPair(t, reads);
      const count = 64;
      let sent = 0;
      const sending = (async () => {
        for (; sent < count; sent++) await dialled.send(largeFrame(sent));
      })();
      let stuckAt = -1;
      while (stuckAt !== sent) {
        stuckAt = sent;
        await pause(300);
        t.true(socket.writableLength <= MOST_IN_FLIGHT, `${socket.writableLength} bytes wait in the writer`);
      }
      t.true(sent < count, 'nothing ever waited');
      // Two payloads, and what the reader's socket brings at once.
      t.true(accepted.bytesIn <= 2 * MAX_PAYLOAD[FrameType.leaves] + 3 * 65536, `${accepted.bytesIn} bytes taken in`);

      for (let index = 0; index < count; index++) {
        const { frame } = await accepted.next();
        t.is(crc32(frame?.payload ?? ''), crc32(wholePayload(largeFrame(index))));
      }
      await sending;
    },
  );

  test.serial(`${reads}: messages that nobody asks for are not piled up`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads);
    const count = 200_000;
    const messages = Array.from({ length: 1000 }, () => ({ kind: 'commit' }) as const);
    stranger.write(PREAMBLE);
    let written = 0;
    const flood = (): void => {
      while (written < count && stranger.writable) {
        const goesOn = stranger.write(controlFrames(messages, written));
        written += messages.length;
        if (!goesOn) {
          stranger.once('drain', flood);
          return;
        }
      }
    };
    flood();
    let last = -1;
    while (last !== connection.bytesIn) {
      last = connection.bytesIn;
      await pause(300);
    }
    t.true(connection.bytesIn < 256 << 10, `${connection.bytesIn} bytes of messages taken in`);
    t.is(connection.failure, undefined);
    for (let i = 0; i < 10_000; i++) await connection.expect('commit');
  });

  test.serial(`${reads}: heartbeats without end leave nothing behind`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads);
    const waiting = failureOf(connection.next());
    const messages = Array.from({ length: 1000 }, () => ({ kind: 'heartbeat' }) as const);
    stranger.write(PREAMBLE);
    const before = process.memoryUsage();
    const count = 100_000;
    for (let sequence = 0; sequence < count; sequence += messages.length) {
      const bytes = controlFrames(messages, sequence);
      if (!stranger.write(bytes)) await once(stranger, 'drain');
    }
    stranger.end();
    t.is((await waiting).code, ErrorCode.CONNECTION_LOST);
    t.true(connection.bytesIn > count * HEADER_SIZE);
    const after = process.memoryUsage();
    t.true(after.heapUsed - before.heapUsed < 48 * MIB, `${(after.heapUsed - before.heapUsed) / MIB} MiB of heap`);
    t.true(after.arrayBuffers - before.arrayBuffers < 48 * MIB);
  });

  test(`${reads}: damage on the way is named to both sides`, async (t) => {
    const { connection, stranger, heard } = await openWithStranger(t, reads);
    const bytes = greeting({ kind: 'commit' }, { kind: 'published' });
    bytes[bytes.length - 1] = 0;
    const whole = greeting({ kind: 'commit' }).length;
    stranger.write(bytes.subarray(0, whole));
    await connection.expect('commit');
    stranger.write(bytes.subarray(whole));
    const failure = await failureOf(connection.next());
    t.is(failure.code, ErrorCode.CORRUPT_STREAM);
    stranger.on('end', () => stranger.end());
    await connection.abort(failure);
    t.deepEqual(messagesIn(heard()), [{ kind: 'abort', code: 'E_CORRUPT_STREAM', message: failure.message }]);
  });

  test(`${reads}: a stranger is told who is here, and that nobody understands it`, async (t) => {
    const { connection, stranger, heard } = await openWithStranger(t, reads);
    stranger.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const failure = await failureOf(connection.next());
    t.is(failure.code, ErrorCode.VERSION);
    t.regex(failure.message, /it looks like HTTP/);
    stranger.on('end', () => stranger.end());
    await connection.abort(failure);
    t.deepEqual(heard().subarray(0, 8), PREAMBLE);
    t.is(messagesIn(heard()).length, 1);
  });

  test(`${reads}: a message that is none of the protocol's is the peer's fault`, async (t) => {
    const { connection, stranger } = await openWithStranger(t, reads);
    const bytes = greeting({ kind: 'abort', code: 'a', message: 'b' });
    stranger.write(bytes.subarray(0, PREAMBLE.length));
    const payload = Buffer.from('81a46b696e64a568656c6c6f', 'hex');
    const header = Buffer.from(bytes.subarray(PREAMBLE.length, PREAMBLE.length + HEADER_SIZE));
    header.writeUInt32LE(payload.length, 8);
    header.writeUInt32LE(crc32(payload), 24);
    header.writeUInt32LE(crc32(header.subarray(0, 28)), 28);
    stranger.write(Buffer.concat([header, payload]));
    t.is((await failureOf(connection.next())).code, ErrorCode.PROTOCOL);
  });

  test(`${reads}: what is not expected is the peer's fault, and named`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    await dialled.sendControl({ kind: 'commit' });
    await t.throwsAsync(accepted.expect('hello', 'goodbye'), {
      code: ErrorCode.PROTOCOL,
      message: "the sender sent 'commit' where 'hello' or 'goodbye' was expected",
    });
    await dialled.send({ type: FrameType.zeroRanges, checked: Buffer.of(0, 1), count: 1 });
    await t.throwsAsync(accepted.expect('hello'), { code: ErrorCode.PROTOCOL, message: /a frame of type 5/ });
  });

  test(`${reads}: a refusal is thrown with the code and the words of the peer`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    await accepted.sendControl({ kind: 'refuse', code: ErrorCode.MISMATCH, message: 'two files here' });
    await t.throwsAsync(dialled.expect('welcome'), {
      code: ErrorCode.MISMATCH,
      message: 'the receiver says: two files here',
    });
  });

  test(`${reads}: a code of the peer that nobody knows here becomes one that is known`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    await accepted.sendControl({ kind: 'refuse', code: 'E_FULL_MOON', message: 'not today' });
    await t.throwsAsync(dialled.expect('welcome'), { code: ErrorCode.PROTOCOL, message: /not today/ });
  });

  test(`${reads}: a peer cannot say that this side was called wrongly`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    await accepted.sendControl({ kind: 'abort', code: ErrorCode.USAGE, message: 'no --bandwidth here' });
    await t.throwsAsync(dialled.expect('welcome'), { code: ErrorCode.PROTOCOL, message: /no --bandwidth here/ });
  });

  test(`${reads}: a failure from outside wakes a side that waits for a message`, async (t) => {
    const { dialled } = await openPair(t, reads);
    const waiting = failureOf(dialled.next());
    const reason = new BallastError(ErrorCode.ABORTED, 'interrupted');
    t.is(dialled.fail(reason), reason);
    t.is(await waiting, reason);
  });

  test(`${reads}: a failure from outside wakes a side that waits to send`, async (t) => {
    const { dialled } = await openPair(t, reads);
    const sending = sendForever(dialled);
    t.false(await settlesWithin(sending, 300));
    const reason = new BallastError(ErrorCode.ABORTED, 'interrupted');
    dialled.fail(reason);
    t.is(await sending, reason);
  });

  test(`${reads}: the first failure counts`, async (t) => {
    const { dialled } = await openPair(t, reads);
    const first = new BallastError(ErrorCode.ABORTED, 'the first');
    dialled.fail(first);
    t.is(dialled.fail(new BallastError(ErrorCode.TIMEOUT, 'the second')), first);
    t.is(dialled.failure, first);
  });

  test.serial(`${reads}: what was sent before a side closes arrives`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    for (let i = 0; i < 3; i++) await dialled.send(largeFrame(i));
    await dialled.sendControl({ kind: 'goodbye' });
    const closed = dialled.close();
    for (let i = 0; i < 3; i++) {
      const { frame } = await accepted.next();
      t.is(crc32(frame?.payload ?? ''), crc32(wholePayload(largeFrame(i))));
    }
    t.is((await accepted.expect('goodbye')).kind, 'goodbye');
    t.is((await failureOf(accepted.next())).code, ErrorCode.CONNECTION_LOST);
    await closed;
  });

  test.serial(`${reads}: a side that closes waits for a peer that reads slowly`, async (t) => {
    const { connection, stranger, heard } = await openWithStranger(t, reads);
    stranger.pause();
    const sending = sendForever(connection);
    t.false(await settlesWithin(sending, 300));
    const closed = connection.abort(new BallastError(ErrorCode.SOURCE_CHANGED, 'the source shrank'));
    // About 1 MiB a second, however seldom this loop gets its turn: what waits takes longer than a mute peer is waited for.
    const started = performance.now();
    let taken = 0;
    const isAhead = (): boolean => taken > (performance.now() - started) * 1000;
    stranger.on('data', (chunk: Buffer) => {
      taken += chunk.length;
      if (isAhead()) stranger.pause();
    });
    const reading = setInterval(() => {
      if (!isAhead()) stranger.resume();
    }, 20);
    stranger.on('end', () => stranger.end());
    await closed;
    clearInterval(reading);
    t.true(performance.now() - started > 1600, 'it was not slow');
    t.deepEqual(messagesIn(heard()), [{ kind: 'abort', code: 'E_SOURCE_CHANGED', message: 'the source shrank' }]);
  });

  test(`${reads}: each frame's memory is given back once, sent or not`, async (t) => {
    const { dialled, accepted } = await openPair(t, reads);
    const given: number[] = [];
    const frame = largeFrame();
    const sending = (async () => {
      for (let i = 0; ; i++) {
        given[i] = 0;
        await dialled.send(frame, () => {
          given[i] = (given[i] ?? 0) + 1;
        });
      }
    })();
    await accepted.next();
    await pause(200);
    t.true(given.includes(0), 'everything was taken at once');
    await accepted.abort(new BallastError(ErrorCode.ABORTED, 'interrupted'));
    await t.throwsAsync(sending, { code: ErrorCode.ABORTED });
    await dialled.close();
    t.deepEqual([...new Set(given)], [1]);
  });
}

test('bytes that come before a connection is made of a dialled socket are not lost', async (t) => {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write(greeting({ kind: 'commit' }));
  });
  t.teardown(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const { socket, start } = dial({ host: '127.0.0.1', port: address.port, tls: undefined, channel: undefined });
  await once(socket, 'connect');
  await pause(100);
  const connection = start({ timeoutMs: 60_000, peer: 'the receiver' });
  t.teardown(() => socket.destroy());
  t.is((await connection.expect('commit')).kind, 'commit');
});

test('an accepted socket whose inside is not as we know it is read the public way', async (t) => {
  const server = createServer({ pauseOnConnect: true });
  t.teardown(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const incoming = once(server, 'connection');
  const { socket, start } = dial({ host: '127.0.0.1', port: address.port, tls: undefined, channel: undefined });
  await once(socket, 'connect');
  const dialled = start({ timeoutMs: 60_000, peer: 'the receiver' });
  const [other] = (await incoming) as [Parameters<typeof accept>[0]];
  Object.assign(Reflect.get(other, '_handle') as object, { useUserBuffer: undefined });
  const accepted = accept(other, { timeoutMs: 60_000, peer: 'the sender' });
  t.teardown(() => socket.destroy());
  await dialled.send(largeFrame());
  const { frame } = await accepted.next();
  t.is(crc32(frame?.payload ?? ''), crc32(wholePayload(largeFrame())));
});

test('a TLS socket whose inside is not as we know it is read the public way', async (t) => {
  if (!READS.includes('over TLS')) {
    t.log('skipped: openssl is not installed');
    t.pass();
    return;
  }
  const { dialled, accepted } = await openPair(t, 'over TLS', {}, (socket) => {
    Object.assign(Reflect.get(socket, '_handle') as object, { useUserBuffer: undefined });
  });
  await dialled.send(largeFrame());
  const { frame } = await accepted.next();
  t.is(crc32(frame?.payload ?? ''), crc32(wholePayload(largeFrame())));
});
