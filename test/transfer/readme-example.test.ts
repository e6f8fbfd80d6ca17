// The README quotes what stands between the markers, word for word.
// [readme-example]
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { receiveMemory, type ReceiveEvent } from '@ballast/receiver';
import { sendMemory, type TransferResult } from '@ballast/sender';
import test from 'ava';

test("a guest's memory arrives as it was sent", async (t) => {
  const folder = await mkdtemp('/tmp/guest-');
  const [source, copy] = [`${folder}/guest.mem`, `${folder}/copy.mem`];
  await writeFile(source, Buffer.alloc(8 << 20, 'what the guest remembers'));

  const sent = await new Promise<TransferResult>((resolve, reject) => {
    const onEvent = (event: ReceiveEvent): void => {
      if (event.event === 'listening') resolve(sendMemory({ files: [source], to: event }));
    };
    receiveMemory({ files: [copy], listen: { host: '127.0.0.1', port: 0 }, onEvent }).catch(reject);
  });

  t.is(sent.dataBytes, 8 << 20);
  t.true((await readFile(copy)).equals(await readFile(source)));
  await rm(folder, { recursive: true });
});
// [/readme-example]
