import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { FrameType, HEADER_SIZE, MAX_BATCH_BYTES, PREAMBLE, encodeHeader } from '@ballast/shared/protocol';
import { ReceiveThreshold, descriptorOf, getSocketOption } from '@ballast/shared/transport';
import { openWithStranger } from './pair.js';

const SOL_SOCKET = 1;
const SO_RCVLOWAT = 18;
const KIB = 1024;
const MIB = 1024 * KIB;
/** Far more than could come in the moment since the look before on a link that is not fast. */
const MUCH = 2 ** 50;

async function openSockets(t: ExecutionContext): Promise<{ reader: Socket; writer: Socket }> {
  const server = createServer();
  t.teardown(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const reader = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [writer] = (await once(server, 'connection')) as [Socket];
  t.teardown(() => {
    reader.destroy();
    writer.destroy();
  });
  if (reader.connecting) await once(reader, 'connect');
  return { reader, writer };
}

function thresholdOf(socket: Socket): ReceiveThreshold {
  const threshold = ReceiveThreshold.of(socket);
  if (threshold === undefined) throw new Error('a TCP socket has a threshold');
  return threshold;
}

/** What the kernel says. */
function bytesBeforeWaking(socket: Socket): number {
  return getSocketOption(descriptorOf(socket), SOL_SOCKET, SO_RCVLOWAT, 4).readInt32LE();
}

test('on a fast link the kernel gathers what is surely on its way, and not more than 512 KiB of it', async (t) => {
  const { reader } = await openSockets(t);
  const threshold = thresholdOf(reader);
  threshold.look(MUCH);
  const seen = [MIB, 100 * KIB, 16 * KIB, 0].map((missing) => {
    threshold.expect(missing);
    return bytesBeforeWaking(reader);
  });
  t.deepEqual(seen, [512 * KIB, 100 * KIB, 1, 1]);
});

test('a link that was never found fast is read as it comes', async (t) => {
  const { reader } = await openSockets(t);
  const threshold = thresholdOf(reader);
  threshold.expect(MIB);
  t.is(bytesBeforeWaking(reader), 1);
  await sleep(20);
  threshold.look(1000);
  threshold.expect(MIB);
  t.is(bytesBeforeWaking(reader), 1);
});

test('bytes that wait for more of them are told when the link turns out to be slow', async (t) => {
  const { reader, writer } = await openSockets(t);
  const threshold = thresholdOf(reader);
  threshold.look(MUCH);
  threshold.expect(MIB);
  reader.resume();
  const told = once(reader, 'data');
  writer.write(Buffer.alloc(1000));
  await sleep(50);
  t.is(reader.bytesRead, 0);
  threshold.look(MUCH);
  await told;
  t.is(reader.bytesRead, 1000);
  t.is(bytesBeforeWaking(reader), 1);
});

test('bytes that wait for more of them are told when nobody waits any longer', async (t) => {
  const { reader, writer } = await openSockets(t);
  const threshold = thresholdOf(reader);
  threshold.look(MUCH);
  threshold.expect(MIB);
  const told = once(reader, 'data');
  writer.write(Buffer.alloc(1000));
  threshold.stop();
  await told;
  t.is(bytesBeforeWaking(reader), 1);
});

test('the end of a stream is told although less came than was waited for', async (t) => {
  const { reader, writer } = await openSockets(t);
  const threshold = thresholdOf(reader);
  threshold.look(MUCH);
  threshold.expect(MIB);
  reader.resume();
  const ended = once(reader, 'end');
  writer.end(Buffer.alloc(1000));
  await ended;
  t.is(reader.bytesRead, 1000);
});

test('what came of a frame is told though its rest does not come, after a link that was fast', async (t) => {
  const { connection, stranger } = await openWithStranger(t, 'straight');
  let sequence = 0;
  const begin = (): boolean => {
    const length = MAX_BATCH_BYTES;
    const fields = { type: FrameType.filler, region: 0, sequence: sequence++, length, count: 0, base: 0 };
    return stranger.write(encodeHeader({ ...fields, payloadChecksum: 0 }));
  };
  const payload = Buffer.alloc(MAX_BATCH_BYTES);
  stranger.write(PREAMBLE);
  const until = performance.now() + 500;
  while (performance.now() < until) {
    begin();
    stranger.write(payload);
    await connection.next();
  }
  begin();
  stranger.write(payload.subarray(0, 300 * KIB));
  while (connection.bytesIn < stranger.bytesWritten) await sleep(20);
  t.is(connection.bytesIn, PREAMBLE.length + sequence * HEADER_SIZE + (sequence - 1) * payload.length + 300 * KIB);
});
