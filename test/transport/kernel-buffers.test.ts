import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { boundKernelBuffers } from '@ballast/shared/transport';

const MIB = 1 << 20;

test('what the kernel holds of a connection that was bounded stays in its share, however fast it was read before', async (t) => {
  const server = createServer();
  t.teardown(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // Reading fast, much at a time, is what makes the kernel's buffers grow.
  let got = 0;
  const receiver = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    onread: {
      buffer: Buffer.alloc(4 * MIB),
      callback: (count) => {
        got += count;
        return true;
      },
    },
  });
  t.teardown(() => receiver.destroy());
  const [sender] = (await once(server, 'connection')) as [Socket];
  t.teardown(() => sender.destroy());
  // Shares of a sixteenth: 2 MiB on the one side, 1 MiB on the other.
  boundKernelBuffers(receiver, 16);
  boundKernelBuffers(sender, 16);

  const chunk = Buffer.alloc(MIB, 1);
  for (let n = 0; n < 512; n++) sender.write(chunk);
  while (got < 512 * MIB) await sleep(20);
  receiver.pause();
  for (let n = 0; n < 64; n++) sender.write(chunk);
  await sleep(500);
  // What the kernel has taken by now still arrives; what this process holds does not.
  sender.destroy();
  got = 0;
  receiver.resume();
  await once(receiver, 'end');
  t.true(got > 0);
  t.true(got <= 2 * MIB + 1 * MIB + 256 * 1024, `${got} bytes were held by the kernel`);
});
