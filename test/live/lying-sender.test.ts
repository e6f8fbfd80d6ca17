import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { receiveMemory } from '@ballast/receiver';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { digestOf, emptyManifest, manifestRoot } from '@ballast/shared/integrity';
import { Dialect, FrameType, LeafTable, RangeEncoder, SESSION_SIZE, type Summary } from '@ballast/shared/protocol';
import { dial, type Address, type Connection } from '@ballast/shared/transport';
import { guestTest } from '../qemu/guest-test.js';
import { QmpClient } from '../qemu/qmp.js';
import { poll } from '../qemu/wait.js';

/* Senders that break the rules of a live move, against a real receiver beside a real QEMU that waits. */

const test = await guestTest();

const MIB = 2 ** 20;
const MEMORY_BYTES = 16 * MIB;
const MEMORY_PAGES = MEMORY_BYTES / 4096;
const PAGE = randomBytes(4096);
const SUMMARY: Summary = {
  ...{ strategy: 'bitmap', dataBytes: 0, zeroBytes: 0, freeBytes: MEMORY_BYTES, scannedPages: 0, askedPages: 0 },
  ...{ whiteouts: 0, mapBytes: 0, sentBytes: 0, storedBytes: 0, mapDigest: '00'.repeat(32) },
};

/** @returns how the receiver ended */
async function receiveFrom(t: ExecutionContext, behave: (to: Connection) => Promise<void>): Promise<BallastError> {
  return (await receiveBeside(t, behave)).error;
}

/** @returns how the receiver ended, and what resolves when its QEMU has */
async function receiveBeside(
  t: ExecutionContext,
  behave: (to: Connection) => Promise<void>,
): Promise<{ error: BallastError; qemuEnded: Promise<unknown> }> {
  const folder = await mkdtemp(join(tmpdir(), 'ballast-lying-'));
  t.teardown(async () => rm(folder, { recursive: true, force: true }));
  const monitor = join(folder, 'qmp');
  const qemu = spawn(
    'setpriv',
    [
      ...['--pdeathsig', 'KILL', '--', 'qemu-system-x86_64', '-machine', 'q35,accel=tcg', '-nodefaults', '-display'],
      ...['none', '-m', '16M', '-object', `memory-backend-file,id=mem,size=16M,mem-path=${folder}/mem,share=on`],
      ...['-numa', 'node,memdev=mem', '-qmp', `unix:${monitor},server=on,wait=off`, '-incoming', 'defer'],
    ],
    { stdio: 'ignore' },
  );
  const gone = once(qemu, 'close');
  t.teardown(async () => {
    qemu.kill('SIGKILL');
    await gone;
  });
  const client = await poll('a monitor', 10_000, async () => QmpClient.connect(monitor).catch(() => undefined));
  client.close();

  let listening: (address: Address) => void = () => undefined;
  const address = new Promise<Address>((resolve) => {
    listening = resolve;
  });
  const received = receiveMemory({
    files: [],
    qmp: monitor,
    listen: { host: '127.0.0.1', port: 0 },
    timeoutMs: 1500,
    onEvent: (event) => {
      if (event.event === 'listening') listening(event);
    },
  }).then(
    () => new BallastError(ErrorCode.INTERNAL, 'it was believed'),
    (error: unknown) => BallastError.from(error),
  );
  const { host, port } = await address;
  const { socket, start } = dial({ host, port, tls: undefined, channel: undefined });
  await once(socket, 'connect');
  const connection = start({ timeoutMs: 5000, peer: 'the receiver' });
  try {
    await connection.sendControl({
      kind: 'hello',
      session: randomBytes(SESSION_SIZE),
      regions: [MEMORY_BYTES],
      dialect: Dialect.ranges,
      dataBytesAtMost: MEMORY_BYTES,
      channels: 0,
      compress: 'none',
      live: true,
    });
    await connection.expect('welcome');
    await behave(connection);
    for (;;) await connection.next();
  } catch {
    // The receiver has had enough.
  }
  await connection.close();
  return { error: await received, qemuEnded: gone };
}

async function sendRange(to: Connection, start: number, end: number): Promise<void> {
  const encoder = new RangeEncoder();
  encoder.add(start, end);
  const { count, base } = encoder;
  await to.send({ type: FrameType.freeRanges, region: 0, count, base, checked: encoder.take() });
}

/** A leaf with the same page in each place of `mask`, of which those in `sent` come. */
async function sendLeaf(to: Connection, leaf: number, mask: number, sent: number): Promise<void> {
  const count = (bits: number): number => bits.toString(2).replaceAll('0', '').length;
  const pages = Buffer.concat(Array.from({ length: count(sent) }, () => PAGE));
  const table = new LeafTable(1);
  const all = Buffer.concat(Array.from({ length: count(mask) }, () => PAGE));
  table.write(0, 0, mask, sent, pages.length, digestOf(all));
  await to.send({ type: FrameType.leaves, region: 0, count: 1, base: leaf, checked: table.bytes, pages });
}

/** Tells all of an empty memory, and begins round 2. */
async function toRound2(to: Connection): Promise<void> {
  await sendRange(to, 0, MEMORY_PAGES);
  await to.sendControl({ kind: 'round', number: 2 });
  await to.expect('received');
}

const CASES: readonly (readonly [what: string, behave: (to: Connection) => Promise<void>, message: RegExp])[] = [
  [
    'a second round before all of the first was told',
    async (to) => {
      await sendRange(to, 0, 100);
      await to.sendControl({ kind: 'round', number: 2 });
    },
    /never told about the page/,
  ],
  [
    'a round out of turn',
    async (to) => {
      await sendRange(to, 0, MEMORY_PAGES);
      await to.sendControl({ kind: 'round', number: 3 });
    },
    /'round' in the middle/,
  ],
  [
    'a leaf that is told about twice in a round',
    async (to) => {
      await toRound2(to);
      await sendLeaf(to, 3, 0b11, 0b11);
      await sendLeaf(to, 3, 0b1, 0b1);
    },
    /told twice/,
  ],
  [
    'a leaf that is sent and released in a round',
    async (to) => {
      await toRound2(to);
      await sendLeaf(to, 3, 0b11, 0b11);
      await sendRange(to, 48, 64);
    },
    /told twice/,
  ],
  [
    'a run that releases a part of a leaf',
    async (to) => {
      await toRound2(to);
      await sendRange(to, 5, 6);
    },
    /released a part of a leaf/,
  ],
  [
    'pages left out that were never told',
    async (to) => {
      await toRound2(to);
      await sendLeaf(to, 3, 0b11, 0b01);
    },
    /left out pages of leaf 3/,
  ],
  [
    'pages left out that an earlier round had released',
    async (to) => {
      await toRound2(to);
      await sendLeaf(to, 3, 0b11, 0b11);
      await to.sendControl({ kind: 'round', number: 3 });
      await to.expect('received');
      await sendLeaf(to, 3, 0b01, 0);
      await to.sendControl({ kind: 'round', number: 4 });
      await to.expect('received');
      await sendLeaf(to, 3, 0b11, 0b01);
    },
    /left out pages of leaf 3/,
  ],
  [
    'device state before the memory was proved',
    async (to) => {
      await sendRange(to, 0, MEMORY_PAGES);
      await to.send({ type: FrameType.state, checked: Buffer.alloc(8) });
    },
    /a frame of type 7/,
  ],
];

/** Proves an empty memory, so that device state may come. */
async function toVerified(to: Connection): Promise<void> {
  await sendRange(to, 0, MEMORY_PAGES);
  await to.sendControl({ kind: 'end', root: manifestRoot(emptyManifest([MEMORY_BYTES])), summary: SUMMARY });
  await to.expect('verified');
}

/** Senders that get as far as a QEMU that takes a guest in: it is gone when they have broken the rules. */
const LATE_CASES: readonly (readonly [what: string, behave: (to: Connection) => Promise<void>, message: RegExp])[] = [
  [
    'a commit before any device state',
    async (to) => {
      await toVerified(to);
      await to.sendControl({ kind: 'commit' });
    },
    /'commit' after 0 bytes of device state/,
  ],
  [
    'device state that is said to be longer than it is',
    async (to) => {
      await toVerified(to);
      await to.send({ type: FrameType.state, checked: Buffer.alloc(8) });
      await to.sendControl({ kind: 'state-end', bytes: 9, running: true });
      await to.sendControl({ kind: 'commit' });
    },
    /'state-end' after 8 bytes of device state/,
  ],
  [
    'a leaf after the memory was proved',
    async (to) => {
      await toVerified(to);
      await sendLeaf(to, 3, 0b1, 0b1);
    },
    /a frame of type 2 where device state was expected/,
  ],
];

for (const [what, behave, message] of LATE_CASES) {
  test(`${what}: refused, and the waiting QEMU is gone`, async (t) => {
    const { error, qemuEnded } = await receiveBeside(t, behave);
    t.is(error.code, ErrorCode.PROTOCOL);
    t.regex(error.message, message);
    // By itself, and not by the end of the test, which comes after this.
    await qemuEnded;
    t.pass();
  });
}

test('bytes that are no device state: QEMU refuses them, and is gone', async (t) => {
  const { error, qemuEnded } = await receiveBeside(t, async (to) => {
    await toVerified(to);
    await to.send({ type: FrameType.state, checked: randomBytes(5000) });
    await to.sendControl({ kind: 'state-end', bytes: 5000, running: true });
    await to.sendControl({ kind: 'commit' });
  });
  t.true(error.code === ErrorCode.GUEST || error.code === ErrorCode.QMP, error.message);
  await qemuEnded;
});

for (const [what, behave, message] of CASES) {
  test(`${what}: refused`, async (t) => {
    const error = await receiveFrom(t, behave);
    t.is(error.code, ErrorCode.PROTOCOL);
    t.regex(error.message, message);
  });
}

test('pages that go and come back in later rounds are what the digest says', async (t) => {
  let again: readonly (readonly [number, number])[] | undefined;
  await receiveFrom(t, async (to) => {
    await toRound2(to);
    await sendLeaf(to, 3, 0b1111, 0b1111);
    await to.sendControl({ kind: 'round', number: 3 });
    await to.expect('received');
    await sendLeaf(to, 3, 0b0101, 0b0001);
    await sendLeaf(to, 4, 0b1, 0b1);
    await to.sendControl({ kind: 'round', number: 4 });
    ({ again } = await to.expect('received'));
    await to.abort(new BallastError(ErrorCode.ABORTED, 'that was all'));
  });
  t.deepEqual(again, []);
});
