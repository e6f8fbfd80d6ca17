import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { CompressionChoice, type SendOptions } from '@ballast/sender';
import { isAvailable, type Compression } from '@ballast/shared/compression';
import { popCount } from '@ballast/shared/memory';
import { FrameType, decodeControl, decodeLeafRecords } from '@ballast/shared/protocol';
import { Proxy, cutAfter, flipAt } from '../faults/proxy.js';
import { MIB, overwritePages, scene } from '../faults/scenes.js';
import { temporaryFolder } from '../support/folder.js';
import {
  Fill,
  PAGE,
  countPages,
  firstWrongPage,
  isData,
  writeMemoryFile,
  type Layout,
} from '../support/memory-file.js';
import { testUnless } from '../support/mounts.js';
import { failedClearly, runSender } from '../support/programs.js';
import { attempt, codeOf, transfer } from '../support/transfer.js';
import { Wire, framesOf } from '../support/wire.js';
import { makeCertificates, whyNoOpenssl } from '../tls/certificates.js';

const tlsTest = testUnless(await whyNoOpenssl());

/** 24 MiB; its pages of data are much alike within a leaf. */
const LAYOUT: Layout = Array.from({ length: 8 }, () => [
  { fill: Fill.data, pages: 500 },
  { fill: Fill.hole, pages: 100 },
  { fill: Fill.zero, pages: 50 },
  { fill: Fill.speck, pages: 18 },
  { fill: Fill.data, pages: 100 },
]).flat();
const DATA_BYTES = countPages(LAYOUT, isData) * PAGE;

const COMPRESSIONS = (['lz4', 'zstd'] as const).filter(isAvailable);

for (const compress of COMPRESSIONS) {
  for (const channels of [1, 3]) {
    test(`${compress} on ${channels} connection(s): every page arrives, in fewer bytes`, async (t) => {
      const { source, copy } = await scene(t, LAYOUT);
      const { sent, received } = await transfer({ from: [source], to: [copy], send: { compress, channels } });
      t.is(firstWrongPage(copy, LAYOUT), undefined);
      t.is(sent.sentBytes, DATA_BYTES);
      t.true(sent.storedBytes < DATA_BYTES / 3, `${sent.storedBytes} stored`);
      t.true(sent.wireBytes < DATA_BYTES / 2, `${sent.wireBytes} on the wire`);
      t.is(received.storedBytes, sent.storedBytes);
    });
  }

  test(`${compress}: what does not shrink goes as it is, beside what does`, async (t) => {
    const folder = await temporaryFolder(t);
    const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
    const text = Buffer.alloc(MIB, 'what the guest remembers ');
    writeFileSync(
      source,
      Buffer.concat([randomBytes(MIB), text, randomBytes(MIB + 5 * PAGE), text, randomBytes(PAGE)]),
    );
    const { sent } = await transfer({ from: [source], to: [copy], send: { compress } });
    t.true(readFileSync(copy).equals(readFileSync(source)));
    t.true(sent.storedBytes >= 2 * MIB + 6 * PAGE && sent.storedBytes < 2.1 * MIB, `${sent.storedBytes} stored`);
  });

  test(`${compress}: a connection that is cut is made again, and goes on from what has arrived`, async (t) => {
    const { source, copy } = await scene(t, LAYOUT);
    const { sent } = await transfer({
      from: [source],
      to: [copy],
      send: { compress, bandwidth: 2 * MIB },
      via: async (receiver) =>
        (await Proxy.open(t, receiver, (n) => (n === 0 ? { toReceiver: [cutAfter(MIB)] } : {}))).address,
    });
    t.is(firstWrongPage(copy, LAYOUT), undefined);
    t.true(sent.sentBytes > DATA_BYTES && sent.sentBytes < 2 * DATA_BYTES - MIB, `${sent.sentBytes} sent`);
  });

  test(`${compress}: of an older copy only what differs is sent, compressed`, async (t) => {
    const { folder, source, copy } = await scene(t, LAYOUT, 4);
    const old = join(folder, 'old.mem');
    writeMemoryFile(old, LAYOUT);
    const changed = Array.from({ length: 300 }, (_, n) => n + 40);
    overwritePages(source, changed, Fill.data, 2);
    const { sent } = await transfer({ from: [source], to: [copy], send: { compress }, receive: { reuse: [old] } });
    t.true(readFileSync(copy).equals(readFileSync(source)));
    t.is(sent.sentBytes, 300 * PAGE);
    t.true(sent.storedBytes < 100 * PAGE, `${sent.storedBytes} stored`);
  });

  test(`${compress}: a compressed leaf that is damaged on the way is asked for again`, async (t) => {
    const { source, copy } = await scene(t, LAYOUT);
    const warnings: string[] = [];
    // Behind the table of the first leaves frame, which any of the first 300 KiB are: bytes of compressed pages.
    const flip = flipAt(20_000);
    const { sent } = await transfer({
      from: [source],
      to: [copy],
      send: { compress },
      receive: {
        onEvent: (event) => {
          if (event.event === 'warning') warnings.push(event.message);
        },
      },
      via: async (receiver) => (await Proxy.open(t, receiver, (n) => (n === 0 ? { toReceiver: [flip] } : {}))).address,
    });
    t.is(flip.flips, 1);
    t.is(firstWrongPage(copy, LAYOUT), undefined);
    t.is(warnings.length, 1);
    t.regex(warnings[0] ?? '', /is not what was sent; it will be asked for again/);
    t.is(sent.sentBytes, DATA_BYTES + 16 * PAGE);
  });

  tlsTest(`${compress}: over TLS`, async (t) => {
    const { folder, source, copy } = await scene(t, LAYOUT);
    const { receiverDirectory, senderDirectory } = await makeCertificates(folder);
    const { sent } = await transfer({
      from: [source],
      to: [copy],
      send: { compress, tls: { directory: senderDirectory } },
      receive: { tls: { directory: receiverDirectory } },
    });
    t.is(firstWrongPage(copy, LAYOUT), undefined);
    t.true(sent.storedBytes < DATA_BYTES / 3, `${sent.storedBytes} stored`);
  });

  test(`${compress}: a frame carries no more pages than one without compression`, async (t) => {
    const { source, copy } = await scene(t, [{ fill: Fill.speck, pages: 2000 }]);
    let wire: Wire | undefined;
    await transfer({
      from: [source],
      to: [copy],
      send: { compress, channels: 1 },
      via: async (receiver) => {
        wire = await Wire.open(t, receiver);
        return wire.address;
      },
    });
    const frames = framesOf(wire?.fromSender ?? Buffer.alloc(0)).filter(
      ({ header }) => header.type === FrameType.leaves,
    );
    t.is(frames.length, 8);
    for (const { header, payload } of frames) {
      const records = decodeLeafRecords(header, payload, 2000 * PAGE, [compress]);
      t.true(records.length <= 16);
      t.true(records.every(({ stored }) => stored < PAGE));
    }
  });
}

test('the automatic choice sends everything right, whatever it chooses', async (t) => {
  for (const send of [{}, { bandwidth: 8 * MIB }] satisfies Partial<SendOptions>[]) {
    const { source, copy } = await scene(t, LAYOUT);
    const { sent } = await transfer({ from: [source], to: [copy], send: { ...send, compress: 'auto', channels: 1 } });
    t.is(firstWrongPage(copy, LAYOUT), undefined);
    t.is(sent.sentBytes, DATA_BYTES);
    if ('bandwidth' in send) t.true(sent.storedBytes < 0.8 * DATA_BYTES, `${sent.storedBytes} stored over a slow link`);
  }
});

test('the automatic choice takes what both sides have, leaf by leaf', async (t) => {
  const { source, copy } = await scene(t, LAYOUT);
  let wire: Wire | undefined;
  const { sent } = await transfer({
    from: [source],
    to: [copy],
    send: { compress: 'auto', channels: 1, bandwidth: 4 * MIB },
    via: async (receiver) => {
      wire = await Wire.open(t, receiver);
      return wire.address;
    },
  });
  t.is(firstWrongPage(copy, LAYOUT), undefined);
  const messages = [wire?.fromSender, wire?.fromReceiver].flatMap((bytes) =>
    framesOf(bytes ?? Buffer.alloc(0))
      .filter(({ header }) => header.type === FrameType.control)
      .map(({ payload }) => decodeControl(payload)),
  );
  const besides: Compression[] | undefined = isAvailable('zstd') ? ['zstd'] : undefined;
  const hello = messages.find((message) => message.kind === 'hello');
  const welcome = messages.find((message) => message.kind === 'welcome');
  t.is(hello?.compress, 'lz4');
  t.deepEqual(hello?.offers, besides);
  t.deepEqual(welcome?.takes, besides);
  const codecs = framesOf(wire?.fromSender ?? Buffer.alloc(0))
    .filter(({ header }) => header.type === FrameType.leaves)
    .flatMap(({ header, payload }) => decodeLeafRecords(header, payload, 24 * MIB, ['lz4', ...(besides ?? [])]))
    .filter(({ sent: pages, stored }) => stored < popCount(pages) * PAGE)
    .map(({ codec }) => codec);
  t.true(codecs.length > 0);
  t.true(codecs.includes(besides === undefined ? 0 : 1), codecs.join(' '));
  t.true(sent.storedBytes < DATA_BYTES);
});

test('without compression nothing of the stream changes', async (t) => {
  const { source, copy } = await scene(t, LAYOUT);
  const { sent } = await transfer({ from: [source], to: [copy] });
  t.is(sent.storedBytes, sent.sentBytes);
});

test('what this side or the other cannot do is refused with a way out', async (t) => {
  const { source, copy } = await scene(t, [{ fill: Fill.data, pages: 16 }]);
  const end = await runSender(t, [source, '--to', 'localhost:1', '--compress', 'gzip']);
  failedClearly(t, end, 2, /gzip.*none, lz4, zstd or auto/);
  if (isAvailable('zstd')) {
    const { sent } = await attempt({ from: [source], to: [copy], send: { compress: 'zstd' } });
    t.is(codeOf(sent), undefined);
  } else {
    failedClearly(
      t,
      await runSender(t, [source, '--to', 'localhost:1', '--compress', 'zstd']),
      2,
      /has no zstd; run 22.15/,
    );
  }
  t.deepEqual(Object.values(CompressionChoice), ['none', 'lz4', 'zstd', 'auto']);
});
