import { existsSync, openSync, closeSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { receiveMemory } from '@ballast/receiver';
import { sendMemory } from '@ballast/sender';
import { temporaryFolder } from '../support/folder.js';
import { Fill, PAGE, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { Program, receiverProgram } from '../support/programs.js';
import { attempt, codeOf, listen, messageOf, orBallastError, type Ended, type Sides } from '../support/transfer.js';
import { Wire, whileHeld } from '../support/wire.js';

/** More than the wire and both programs hold between them, so that the sender is still reading when the wire holds. */
const LARGE: Layout = [{ fill: Fill.data, pages: 12_000 }];

/** A transfer of LARGE in the middle of which something is done while the wire holds the sender's bytes back. */
async function inTheMiddle(
  t: ExecutionContext,
  then: (files: { source: string; copy: string }, wire: Wire) => void,
  options: Partial<Sides> = {},
): Promise<Ended & { source: string; copy: string }> {
  const folder = await temporaryFolder(t, 192 << 20);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const ended = await attempt({
    from: [source],
    to: [copy],
    async via(receiver) {
      const wire = await Wire.open(t, receiver, 1 << 20);
      wire.whenHeld(() => {
        then({ source, copy }, wire);
      });
      return wire.address;
    },
    ...options,
  });
  return { ...ended, source, copy };
}

function overwrite(path: string, offset: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(100, 'changed'), 0, 100, offset);
  closeSync(fd);
}

test('a source that shrinks while it is sent is an error of its own, and nothing is left behind', async (t) => {
  const { sent, received, copy } = await inTheMiddle(t, ({ source }, wire) => {
    truncateSync(source, 100 * PAGE);
    wire.release();
  });
  t.is(codeOf(sent), 'E_SOURCE_CHANGED', messageOf(sent));
  t.is(codeOf(received), 'E_SOURCE_CHANGED', messageOf(received));
  t.regex(messageOf(sent), /guest\.mem/);
  t.false(existsSync(copy));
  t.false(existsSync(`${copy}.partial`));
});

test('a source that shrinks by a hole at its end is an error, too', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, [
    { fill: Fill.data, pages: 6000 },
    { fill: Fill.hole, pages: 500 },
  ]);
  const { sent, received } = await attempt({
    from: [source],
    to: [copy],
    via: whileHeld(t, 1 << 20, () => {
      truncateSync(source, 6100 * PAGE);
    }),
  });
  t.is(codeOf(sent), 'E_SOURCE_CHANGED', messageOf(sent));
  t.is(codeOf(received), 'E_SOURCE_CHANGED', messageOf(received));
  t.false(existsSync(copy));
});

test('the check of the source finds what changed after it was sent, and names the place', async (t) => {
  const { sent, received, copy } = await inTheMiddle(
    t,
    ({ source }, wire) => {
      // Sent long ago, since the wire holds behind it.
      overwrite(source, 3 * 65536 + 5000);
      wire.release();
    },
    { send: { checkSource: true } },
  );
  t.is(codeOf(sent), 'E_SOURCE_CHANGED', messageOf(sent));
  t.regex(messageOf(sent), /guest\.mem changed while it was sent, .* at offset 196608;/);
  t.is(codeOf(received), 'E_SOURCE_CHANGED', messageOf(received));
  t.false(existsSync(copy));
  t.false(existsSync(`${copy}.partial`));
});

test('without the check, what changed after it was sent arrives as it was when it was read', async (t) => {
  const { sent, received, copy } = await inTheMiddle(t, ({ source }, wire) => {
    overwrite(source, 3 * 65536 + 5000);
    wire.release();
  });
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(codeOf(received), undefined, messageOf(received));
  t.is(firstWrongPage(copy, LARGE), undefined);
});

test('the check of a source that did not change finds nothing', async (t) => {
  const { sent, copy } = await inTheMiddle(
    t,
    (_, wire) => {
      wire.release();
    },
    { send: { checkSource: true } },
  );
  t.is(codeOf(sent), undefined, messageOf(sent));
  t.is(firstWrongPage(copy, LARGE), undefined);
});

test('a sender that is interrupted says so, tells the receiver, and no file has the name', async (t) => {
  const controller = new AbortController();
  const { sent, received, copy } = await inTheMiddle(
    t,
    (_, wire) => {
      controller.abort();
      wire.release();
    },
    { send: { signal: controller.signal } },
  );
  t.is(codeOf(sent), 'E_ABORTED');
  t.is(codeOf(received), 'E_ABORTED', messageOf(received));
  t.regex(messageOf(received), /^the sender at .* says: /);
  t.false(existsSync(copy));
});

test('a receiver that is interrupted says so, tells the sender, and no file has the name', async (t) => {
  const controller = new AbortController();
  const { sent, received, copy } = await inTheMiddle(
    t,
    (_, wire) => {
      controller.abort();
      wire.release();
    },
    { receive: { signal: controller.signal } },
  );
  t.is(codeOf(received), 'E_ABORTED');
  t.is(codeOf(sent), 'E_ABORTED', messageOf(sent));
  t.regex(messageOf(sent), /^the receiver at .* says: /);
  t.false(existsSync(copy));
});

test('a receiver that is interrupted before anyone came makes no file', async (t) => {
  const folder = await temporaryFolder(t);
  const copy = join(folder, 'copy.mem');
  const controller = new AbortController();
  const waiting = await listen(t, { files: [copy], signal: controller.signal });
  controller.abort();
  t.is(codeOf(await orBallastError(waiting.result)), 'E_ABORTED');
  t.false(existsSync(copy));
  t.false(existsSync(`${copy}.partial`));
});

test('a signal that was given before is heeded at once on both sides', async (t) => {
  const folder = await temporaryFolder(t);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, [{ fill: Fill.data, pages: 4 }]);
  const signal = AbortSignal.abort();
  const to = { host: '127.0.0.1', port: 0 };
  t.is(codeOf(await orBallastError(receiveMemory({ files: [copy], listen: to, signal }))), 'E_ABORTED');
  const waiting = await listen(t, { files: [copy] });
  t.is(codeOf(await orBallastError(sendMemory({ files: [source], to: waiting.address, signal }))), 'E_ABORTED');
  // The one that waits is none the worse for it.
  t.is(codeOf(await orBallastError(sendMemory({ files: [source], to: waiting.address }))), undefined);
  t.is(codeOf(await orBallastError(waiting.result)), undefined);
});

test('a receiver that is killed in the middle leaves no file under the final name', async (t) => {
  const folder = await temporaryFolder(t, 192 << 20);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const { receiver, address } = await receiverProgram(t, [copy]);
  const wire = await Wire.open(t, address, 1 << 20);
  const sending = orBallastError(sendMemory({ files: [source], to: wire.address, retryMs: 0 }));
  await wire.held;
  receiver.kill('SIGKILL');
  t.is((await receiver.ended).killedBy, 'SIGKILL');
  wire.release();
  t.is(codeOf(await sending), 'E_CONNECTION_LOST');
  t.false(existsSync(copy));

  // What it left under another name is in nobody's way.
  const next = await attempt({ from: [source], to: [copy] });
  t.is(codeOf(next.received), undefined, messageOf(next.received));
  t.is(firstWrongPage(copy, LARGE), undefined);
});

test('a sender that is killed in the middle leaves a receiver that says so, and no file under the final name', async (t) => {
  const folder = await temporaryFolder(t, 192 << 20);
  const [source, copy] = [join(folder, 'guest.mem'), join(folder, 'copy.mem')];
  writeMemoryFile(source, LARGE);
  const waiting = await listen(t, { files: [copy], timeoutMs: 1000 });
  const wire = await Wire.open(t, waiting.address, 1 << 20);
  const sender = Program.sender(t, [source, '--to', `127.0.0.1:${wire.address.port}`]);
  await wire.held;
  sender.kill('SIGKILL');
  wire.release();
  t.is(codeOf(await orBallastError(waiting.result)), 'E_CONNECTION_LOST');
  t.false(existsSync(copy));
});
