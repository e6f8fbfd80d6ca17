import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import type { ReceiveOptions } from '@ballast/receiver';
import { sendMemory, type SendOptions } from '@ballast/sender';
import { codecOf, isAvailable, type Compression } from '@ballast/shared/compression';
import type { TransferResult } from '@ballast/shared/events';
import { BallastError } from '@ballast/shared/errors';
import { HINT_SIZE, RegionManifest, digestOf, manifestRoot, pageHints } from '@ballast/shared/integrity';
import {
  Dialect,
  FrameType,
  HoldingsEncoder,
  LeafTable,
  SESSION_SIZE,
  decodeLeafRecords,
  type ControlOf,
  type HeldLeaf,
  type LeafRecord,
  type Summary,
} from '@ballast/shared/protocol';
import { byDataEvents, type Connection } from '@ballast/shared/transport';
import { Fill, LEAF, PAGE, contentsOf, firstWrongPage, writeMemoryFile, type Layout } from '../support/memory-file.js';
import { codeOf, listen, messageOf, orBallastError, type Waiting } from '../support/transfer.js';
import { scene } from './scenes.js';

/** 64 leaves of data. */
const LAYOUT: Layout = [{ fill: Fill.data, pages: 1024 }];
const CONTENTS = contentsOf(LAYOUT);
const LEAVES = 64;
const NO_DIGEST = Buffer.alloc(32);

function peerOf(t: ExecutionContext, socket: Socket): Connection {
  t.teardown(() => socket.destroy());
  return byDataEvents(socket, { timeoutMs: 10_000, peer: 'the program under test' });
}

/** Lets the real sender talk to a receiver that does what the test says, and tells how the sender ended. */
async function sendTo(
  t: ExecutionContext,
  behave: (connection: Connection) => Promise<void>,
  send: Partial<SendOptions> = {},
): Promise<TransferResult | BallastError> {
  const { source } = await scene(t, LAYOUT, 1);
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  server.on('connection', (socket) => {
    const connection = peerOf(t, socket);
    // Whatever the sender does about the lies, it does in the end by closing.
    behave(connection).catch(() => undefined);
  });
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('the server has no address');
  return await orBallastError(
    sendMemory({
      files: [source],
      to: { host: '127.0.0.1', port: bound.port },
      timeoutMs: 10_000,
      retryMs: 0,
      ...send,
    }),
  );
}

/** What a receiver would hold of a leaf that is as the source has it. */
function heldLeaf(leaf: number): HeldLeaf {
  const pages = CONTENTS.subarray(leaf * LEAF, (leaf + 1) * LEAF);
  return { leaf, mask: 0xffff, digest: digestOf(pages), hints: pageHints(pages) };
}

async function tell(connection: Connection, held: readonly HeldLeaf[], region = 0): Promise<void> {
  const encoder = new HoldingsEncoder();
  for (const leaf of held) encoder.add(leaf);
  const { count, base } = encoder;
  await connection.send({ type: FrameType.holdings, region, count, base, checked: encoder.take() });
}

async function tellEnd(connection: Connection, base = LEAVES): Promise<void> {
  await connection.send({ type: FrameType.holdings, region: 0, count: 0, base, checked: Buffer.alloc(0) });
}

/** Reads to `end` and returns it with the leaves that came before. */
async function readToEnd(
  connection: Connection,
  compressions?: readonly Compression[],
): Promise<{ records: LeafRecord[]; pages: Buffer[]; root: Uint8Array }> {
  const records: LeafRecord[] = [];
  const pages: Buffer[] = [];
  for (;;) {
    const { control, frame } = await connection.next();
    if (control?.kind === 'end') return { records, pages, root: control.root };
    if (frame?.header.type !== FrameType.leaves) continue;
    const payload = Buffer.from(frame.payload);
    for (const record of decodeLeafRecords(frame.header, payload, LEAVES * LEAF, compressions)) {
      records.push(record);
      pages.push(payload.subarray(record.at, record.at + record.stored));
    }
  }
}

test('a receiver whose hints lie about pages gets the leaves whole when it asks for them', async (t) => {
  const again: Buffer[] = [];
  const ended = await sendTo(t, async (connection) => {
    await connection.expect('hello');
    await connection.sendControl({ kind: 'welcome', holds: true, channels: 0 });
    // The hints of all pages are right, and still the leaf is another.
    await tell(
      connection,
      Array.from({ length: LEAVES }, (_, leaf) => ({ ...heldLeaf(leaf), digest: NO_DIGEST })),
    );
    await tellEnd(connection);
    const first = await readToEnd(connection);
    t.true(first.records.every((record) => record.sent === 0));
    await connection.sendControl({
      kind: 'resend',
      leaves: [
        [0, 3],
        [0, 60],
      ],
    });
    const second = await readToEnd(connection);
    again.push(...second.pages);
    await connection.sendControl({ kind: 'verified', root: second.root });
    await connection.expect('commit');
    await connection.sendControl({ kind: 'published' });
    await connection.expect('goodbye');
    await connection.close();
  });
  t.is(codeOf(ended), undefined, messageOf(ended));
  t.is(again.length, 2);
  t.true(again[0]?.equals(CONTENTS.subarray(3 * LEAF, 4 * LEAF)));
  t.true(again[1]?.equals(CONTENTS.subarray(60 * LEAF, 61 * LEAF)));
});

test('a receiver that claims hints of other pages gets those pages', async (t) => {
  const ended = await sendTo(t, async (connection) => {
    await connection.expect('hello');
    await connection.sendControl({ kind: 'welcome', holds: true, channels: 0 });
    await tell(connection, [{ leaf: 0, mask: 0x0005, digest: NO_DIGEST, hints: Buffer.alloc(2 * HINT_SIZE, 7) }]);
    await tellEnd(connection);
    const { records } = await readToEnd(connection);
    t.is(records.length, LEAVES);
    t.true(records.every((record) => record.sent === 0xffff));
    await connection.sendControl({ kind: 'verified', root: NO_DIGEST });
    await connection.next();
  });
  t.is(codeOf(ended), 'E_DIGEST_MISMATCH');
});

test('a receiver that takes what it was not offered is given up', async (t) => {
  for (const [compress, takes] of [
    ['none', 'zstd'],
    ['lz4', 'zstd'],
    ['auto', 'lz4'],
  ] as const) {
    const ended = await sendTo(
      t,
      async (connection) => {
        await connection.expect('hello');
        await connection.sendControl({ kind: 'welcome', holds: false, channels: 0, takes: [takes] });
        await readToEnd(connection);
      },
      { compress },
    );
    t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
    t.regex(messageOf(ended), new RegExp(`takes ${takes}, which it was not offered`));
  }
});

test('a receiver that takes nothing besides gets nothing besides', async (t) => {
  const ended = await sendTo(
    t,
    async (connection) => {
      const { compress, offers } = await connection.expect('hello');
      t.is(compress, 'lz4');
      t.deepEqual(offers, isAvailable('zstd') ? ['zstd'] : undefined);
      await connection.sendControl({ kind: 'welcome', holds: false, channels: 0 });
      const { root, records } = await readToEnd(connection, ['lz4']);
      t.true(records.length > 0);
      await connection.sendControl({ kind: 'verified', root });
      await connection.expect('commit');
      await connection.sendControl({ kind: 'published' });
      await connection.expect('goodbye');
      await connection.close();
    },
    { compress: 'auto' },
  );
  t.is(codeOf(ended), undefined, messageOf(ended));
});

const LIES: readonly (readonly [string, (connection: Connection) => Promise<void>])[] = [
  [
    'tells its holdings out of order',
    async (connection) => {
      await tell(connection, [heldLeaf(5)]);
      await tell(connection, [heldLeaf(4)]);
      await tellEnd(connection);
    },
  ],
  [
    'tells of a leaf twice',
    async (connection) => {
      await tell(connection, [heldLeaf(5)]);
      await tell(connection, [heldLeaf(5)]);
      await tellEnd(connection);
    },
  ],
  [
    'holds leaves beyond the memory',
    async (connection) => {
      await tell(connection, [{ ...heldLeaf(0), leaf: LEAVES }]);
    },
  ],
  [
    'ends its holdings beyond the memory',
    async (connection) => {
      await tellEnd(connection, LEAVES + 1);
    },
  ],
  [
    'tells more after the end of its holdings',
    async (connection) => {
      await tellEnd(connection);
      await tell(connection, [heldLeaf(5)]);
    },
  ],
  [
    'holds another memory file',
    async (connection) => {
      await tell(connection, [heldLeaf(0)], 1);
    },
  ],
  [
    'verifies before it has told all that it holds',
    async (connection) => {
      await tell(connection, [heldLeaf(0)]);
      await connection.sendControl({ kind: 'verified', root: NO_DIGEST });
    },
  ],
];

for (const [name, lie] of LIES) {
  test(`a receiver that ${name} is given up`, async (t) => {
    const ended = await sendTo(t, async (connection) => {
      await connection.expect('hello');
      await connection.sendControl({ kind: 'welcome', holds: true, channels: 0 });
      await lie(connection);
      await readToEnd(connection);
    });
    t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  });
}

test('a receiver that asks for leaves again for ever is given up', async (t) => {
  let rounds = 0;
  const ended = await sendTo(t, async (connection) => {
    await connection.expect('hello');
    await connection.sendControl({ kind: 'welcome', holds: false, channels: 0 });
    for (; rounds < 1000; rounds++) {
      await readToEnd(connection);
      await connection.sendControl({ kind: 'resend', leaves: [[0, 7]] });
    }
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.true(rounds < 100);
});

for (const [name, leaf] of [
  ['beyond the memory', [0, LEAVES]],
  ['beyond all memory', [0, Number.MAX_SAFE_INTEGER]],
  ['of a memory file that there is not', [7, 0]],
] as const) {
  test(`a receiver that asks for a leaf ${name} gets nothing, or is given up`, async (t) => {
    const ended = await sendTo(t, async (connection) => {
      await connection.expect('hello');
      await connection.sendControl({ kind: 'welcome', holds: false, channels: 0 });
      await readToEnd(connection);
      await connection.sendControl({ kind: 'resend', leaves: [[...leaf]] });
      const { records } = await readToEnd(connection);
      t.is(records.length, 0);
      await connection.sendControl({ kind: 'verified', root: NO_DIGEST });
      await connection.next();
    });
    t.true(['E_PROTOCOL', 'E_DIGEST_MISMATCH'].includes(codeOf(ended) ?? ''), messageOf(ended));
  });
}

test('a receiver that asks for the same leaf twice in one breath gets it once', async (t) => {
  const ended = await sendTo(t, async (connection) => {
    await connection.expect('hello');
    await connection.sendControl({ kind: 'welcome', holds: false, channels: 0 });
    await readToEnd(connection);
    await connection.sendControl({
      kind: 'resend',
      leaves: [
        [0, 9],
        [0, 2],
        [0, 9],
      ],
    });
    const { records } = await readToEnd(connection);
    t.deepEqual(
      records.map((record) => record.leaf),
      [2, 9],
    );
    await connection.sendControl({ kind: 'verified', root: NO_DIGEST });
    await connection.next();
  });
  t.is(codeOf(ended), 'E_DIGEST_MISMATCH', messageOf(ended));
});

test('a receiver that says it published what was never committed is not believed', async (t) => {
  const ended = await sendTo(t, async (connection) => {
    await connection.expect('hello');
    await connection.sendControl({ kind: 'published-before', root: NO_DIGEST });
    await connection.next();
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
});

test('a receiver that publishes without a commit is not believed', async (t) => {
  const ended = await sendTo(t, async (connection) => {
    await connection.expect('hello');
    await connection.sendControl({ kind: 'welcome', holds: false, channels: 0 });
    await readToEnd(connection);
    await connection.sendControl({ kind: 'published' });
    await connection.next();
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
});

const SUMMARY: Summary = {
  strategy: 'bitmap',
  dataBytes: 0,
  zeroBytes: 0,
  freeBytes: 0,
  scannedPages: 0,
  askedPages: 0,
  whiteouts: 0,
  mapBytes: 0,
  sentBytes: 0,
  storedBytes: 0,
  mapDigest: '0'.repeat(64),
};

/** Lets a sender that does what the test says talk to the real receiver, and tells how the receiver ended. */
async function receiveFrom(
  t: ExecutionContext,
  behave: (connection: Connection) => Promise<void>,
  held?: Layout,
  terms: Pick<ControlOf<'hello'>, 'compress' | 'offers'> = { compress: 'none' },
  receive: Partial<ReceiveOptions> = {},
): Promise<{ ended: TransferResult | BallastError; copy: string }> {
  const { copy } = await scene(t, [{ fill: Fill.hole, pages: 1024 }], 1);
  if (held !== undefined) writeMemoryFile(`${copy}.partial`, held);
  const waiting: Waiting = await listen(t, { files: [copy], timeoutMs: 1000, ...receive });
  const socket = connect(waiting.address);
  const connection = peerOf(t, socket);
  const lying = (async (): Promise<void> => {
    await connection.sendControl({
      kind: 'hello',
      session: randomBytes(SESSION_SIZE),
      regions: [LEAVES * LEAF],
      dialect: Dialect.ranges,
      ...terms,
      dataBytesAtMost: LEAVES * LEAF,
      channels: 0,
      live: false,
    });
    await connection.expect('welcome');
    await behave(connection);
    for (;;) await connection.next();
  })().catch(() => undefined);
  const ended = await orBallastError(waiting.result);
  await lying;
  return { ended, copy };
}

/** Sends leaves, of each the pages in `sent` only. */
async function sendLeavesOf(
  connection: Connection,
  leaves: readonly number[],
  sent = 0xffff,
  digest?: Buffer,
): Promise<void> {
  const [base = 0] = leaves;
  const table = new LeafTable(leaves.length);
  const pages: Buffer[] = [];
  for (const [index, leaf] of leaves.entries()) {
    const all = CONTENTS.subarray(leaf * LEAF, (leaf + 1) * LEAF);
    for (let page = 0; page < 16; page++)
      if ((sent & (1 << page)) !== 0) pages.push(all.subarray(page * PAGE, (page + 1) * PAGE));
    const stored =
      Array.from({ length: 16 }, (_, page) => (sent >> page) & 1).reduce((sum, bit) => sum + bit, 0) * PAGE;
    table.write(index, leaf - base, 0xffff, sent, stored, digest ?? digestOf(all));
  }
  await connection.send({
    type: FrameType.leaves,
    count: leaves.length,
    base,
    checked: table.bytes,
    pages: Buffer.concat(pages),
  });
}

function leavesFrom(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, n) => start + n);
}

async function sendAll(connection: Connection): Promise<void> {
  for (let leaf = 0; leaf < LEAVES; leaf += 16) await sendLeavesOf(connection, leavesFrom(leaf, leaf + 16));
}

test('a sender that leaves out pages of a fresh memory is given up', async (t) => {
  const { ended, copy } = await receiveFrom(t, async (connection) => {
    await sendLeavesOf(connection, [0], 0x7fff);
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.regex(messageOf(ended), /left out pages of leaf 0 that nothing here holds/);
  t.false(existsSync(copy));
});

test('a sender that leaves out pages that the partial file does not hold is given up', async (t) => {
  const { ended, copy } = await receiveFrom(
    t,
    async (connection) => {
      await sendLeavesOf(connection, leavesFrom(0, 8), 0);
      await sendLeavesOf(connection, [8], 0x00ff);
    },
    [
      { fill: Fill.data, pages: 128 + 7 },
      { fill: Fill.hole, pages: 1024 - 135 },
    ],
  );
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.false(existsSync(copy));
});

test('a sender that leaves out pages that are other ones in the partial file is asked for them', async (t) => {
  const asked: (readonly [number, number])[] = [];
  const { ended, copy } = await receiveFrom(
    t,
    async (connection) => {
      // Read what it holds, as an honest sender does, and take no notice.
      for (let told = 0; told < LEAVES;) {
        const { frame } = await connection.next();
        told = frame?.header.count === 0 ? LEAVES : told;
      }
      await sendLeavesOf(connection, leavesFrom(0, LEAVES), 0);
      await connection.sendControl({ kind: 'end', root: NO_DIGEST, summary: SUMMARY });
      asked.push(...(await connection.expect('resend')).leaves);
      await connection.close();
    },
    [
      { fill: Fill.data, pages: 1008 },
      { fill: Fill.speck, pages: 16 },
    ],
  );
  t.deepEqual(asked, [[0, 63]]);
  t.not(codeOf(ended), undefined);
  t.false(existsSync(copy));
});

test('a leaf that never is what its digest says ends the transfer after a few attempts', async (t) => {
  let rounds = 0;
  const { ended, copy } = await receiveFrom(t, async (connection) => {
    await sendAll(connection).catch(() => undefined);
    await sendLeavesOf(connection, [0], 0xffff, NO_DIGEST).catch(() => undefined);
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  const wrong = await receiveFrom(t, async (connection) => {
    await sendLeavesOf(connection, [0], 0xffff, NO_DIGEST);
    await sendLeavesOf(connection, leavesFrom(1, 15));
    for (let leaf = 15; leaf < LEAVES; leaf += 7) await sendLeavesOf(connection, leavesFrom(leaf, leaf + 7));
    for (; rounds < 100; rounds++) {
      await connection.sendControl({ kind: 'end', root: NO_DIGEST, summary: SUMMARY });
      await connection.expect('resend');
      await sendLeavesOf(connection, [0], 0xffff, NO_DIGEST);
    }
  });
  t.is(codeOf(wrong.ended), 'E_DIGEST_MISMATCH', messageOf(wrong.ended));
  t.is(rounds, 3);
  t.false(existsSync(copy));
  t.false(existsSync(wrong.copy));
});

test('a sender that says it is done before it has told about every page is given up', async (t) => {
  const { ended, copy } = await receiveFrom(t, async (connection) => {
    await sendLeavesOf(connection, leavesFrom(0, 8));
    await connection.sendControl({ kind: 'end', root: NO_DIGEST, summary: SUMMARY });
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.regex(messageOf(ended), /never told about the page at offset 524288/);
  t.false(existsSync(copy));
});

test('a sender whose root is not that of what it sent gets nothing published', async (t) => {
  const { ended, copy } = await receiveFrom(t, async (connection) => {
    await sendAll(connection);
    await connection.sendControl({ kind: 'end', root: NO_DIGEST, summary: SUMMARY });
  });
  t.is(codeOf(ended), 'E_DIGEST_MISMATCH', messageOf(ended));
  t.false(existsSync(copy));
});

test('a sender that commits before anything was verified is given up', async (t) => {
  const { ended, copy } = await receiveFrom(t, async (connection) => {
    await sendAll(connection);
    await connection.sendControl({ kind: 'commit' });
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.false(existsSync(copy));
});

test('a sender that fails leaves what another had sent before', async (t) => {
  const { copy } = await scene(t, [{ fill: Fill.hole, pages: 1024 }], 1);
  const waiting = await listen(t, { files: [copy], timeoutMs: 10_000 });
  const call = async (): Promise<Connection> => {
    const connection = peerOf(t, connect(waiting.address));
    const terms = { compress: 'none', dialect: Dialect.ranges, channels: 0, live: false } as const;
    const [session, regions] = [randomBytes(SESSION_SIZE), [LEAVES * LEAF]];
    await connection.sendControl({ kind: 'hello', session, regions, dataBytesAtMost: LEAVES * LEAF, ...terms });
    await connection.expect('welcome');
    return connection;
  };
  const lost = await call();
  await sendLeavesOf(lost, leavesFrom(0, 16));
  await lost.close();
  const liar = await call();
  await liar.sendControl({ kind: 'commit' });
  const ended = await orBallastError(waiting.result);
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.deepEqual(readFileSync(`${copy}.partial`).subarray(0, 16 * LEAF), CONTENTS.subarray(0, 16 * LEAF));
});

/** Does all that a sender does until the files are published, and then says nothing more but heartbeats. */
async function neverSayGoodbye(connection: Connection): Promise<void> {
  await sendAll(connection);
  const manifest = new RegionManifest(LEAVES * LEAF);
  for (let leaf = 0; leaf < LEAVES; leaf++)
    manifest.set(leaf, 0xffff, digestOf(CONTENTS.subarray(leaf * LEAF, (leaf + 1) * LEAF)));
  await connection.sendControl({ kind: 'end', root: manifestRoot([manifest]), summary: SUMMARY });
  await connection.expect('verified');
  await connection.sendControl({ kind: 'commit' });
  await connection.expect('published');
}

test('a sender that never says goodbye is waited for as long as the timeout, and the transfer is a success', async (t) => {
  t.timeout(20_000);
  const { ended, copy } = await receiveFrom(t, neverSayGoodbye);
  t.is(codeOf(ended), undefined, messageOf(ended));
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test('a receiver that waits for a goodbye ends at once when it is interrupted', async (t) => {
  t.timeout(20_000);
  const interruption = new AbortController();
  let interrupted = 0;
  const { ended, copy } = await receiveFrom(
    t,
    async (connection) => {
      await neverSayGoodbye(connection);
      interrupted = performance.now();
      interruption.abort();
    },
    undefined,
    undefined,
    { signal: interruption.signal, timeoutMs: 15_000 },
  );
  t.true(performance.now() - interrupted < 5000);
  t.is(codeOf(ended), undefined, messageOf(ended));
  t.is(firstWrongPage(copy, LAYOUT), undefined);
});

test('a sender that comes back twice before it is served again has its first return ended, with the reason', async (t) => {
  const { copy } = await scene(t, [{ fill: Fill.hole, pages: 1024 }], 1);
  const interruption = new AbortController();
  const waiting = await listen(t, { files: [copy], timeoutMs: 15_000, signal: interruption.signal });
  const session = randomBytes(SESSION_SIZE);
  const call = async (): Promise<Connection> => {
    const connection = peerOf(t, connect({ ...waiting.address, allowHalfOpen: true }));
    const terms = { compress: 'none', dialect: Dialect.ranges, channels: 0, live: false } as const;
    const regions = [LEAVES * LEAF];
    await connection.sendControl({ kind: 'hello', session, regions, dataBytesAtMost: 0, ...terms });
    return connection;
  };
  const served = await call();
  await served.expect('welcome');
  const once = await call();
  await t.throwsAsync(served.expect('verified'), { message: /has made a new connection/ });
  // Which never closes what has ended, and so keeps its session busy for a while.
  const twice = await call();
  const began = performance.now();
  await t.throwsAsync(once.expect('welcome'), { code: 'E_CONNECTION_LOST', message: /has made a new connection/ });
  t.true(performance.now() - began < 12_000);
  await twice.expect('welcome');
  interruption.abort();
  await t.throwsAsync(waiting.result, { code: 'E_ABORTED' });
});

/** Sends a leaf with all of its pages in so many bytes, whatever they are. */
async function sendStored(connection: Connection, leaf: number, stored: Buffer, codec = 0): Promise<void> {
  const table = new LeafTable(1);
  table.write(0, 0, 0xffff, 0xffff, stored.length, digestOf(CONTENTS.subarray(leaf * LEAF, (leaf + 1) * LEAF)), codec);
  await connection.send({ type: FrameType.leaves, count: 1, base: leaf, checked: table.bytes, pages: stored });
}

const LEAF_0 = CONTENTS.subarray(0, LEAF);
const COMPRESSED = codecOf('lz4')?.compress(LEAF_0) ?? Buffer.alloc(0);

for (const [what, stored] of Object.entries({
  'that claim to be 4 GiB': Buffer.alloc(272, 0xff),
  'that claim to be another length': Buffer.concat([Buffer.from([1]), COMPRESSED.subarray(1)]),
  'that were cut off': COMPRESSED.subarray(0, -1),
  'that are followed by others': Buffer.concat([COMPRESSED, Buffer.alloc(1)]),
  'of another leaf': codecOf('lz4')?.compress(Buffer.alloc(LEAF, 'x')) ?? Buffer.alloc(0),
})) {
  test(`a sender of compressed bytes ${what} is asked again, and given up after the fourth time`, async (t) => {
    let asked = 0;
    const { ended, copy } = await receiveFrom(
      t,
      async (connection) => {
        for (let leaf = 1; leaf < LEAVES; leaf++) await sendLeavesOf(connection, [leaf]);
        for (;;) {
          await sendStored(connection, 0, stored);
          await connection.sendControl({ kind: 'end', root: NO_DIGEST, summary: SUMMARY });
          t.deepEqual((await connection.expect('resend')).leaves, [[0, 0]]);
          asked++;
        }
      },
      undefined,
      { compress: 'lz4' },
    );
    t.is(codeOf(ended), 'E_DIGEST_MISMATCH', messageOf(ended));
    t.is(asked, 3);
    t.false(existsSync(copy));
  });
}

test('a sender that compresses without having said so is given up', async (t) => {
  const { ended } = await receiveFrom(t, async (connection) => {
    await sendStored(connection, 0, COMPRESSED);
  });
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.regex(messageOf(ended), /carry \d+ bytes for 16 pages: leaf 0/);
});

test('a sender that compresses with what this side did not take is given up', async (t) => {
  const cases: [number, Pick<ControlOf<'hello'>, 'compress' | 'offers'>][] = [
    [1, { compress: 'lz4' }],
    [2, { compress: 'lz4', offers: ['zstd'] }],
    [2 ** 32 - 1, { compress: 'lz4', offers: ['zstd', 'lz4'] }],
  ];
  for (const [codec, terms] of cases) {
    const lie = async (connection: Connection): Promise<void> => sendStored(connection, 0, COMPRESSED, codec);
    const { ended } = await receiveFrom(t, lie, undefined, terms);
    t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
    t.regex(messageOf(ended), /name a compression that was not agreed on: leaf 0/);
  }
});

(isAvailable('zstd') ? test : test.skip)(
  'leaves that were compressed otherwise than they say are asked for again, and those that say the truth are not',
  async (t) => {
    const zstd = codecOf('zstd')?.compress(CONTENTS.subarray(LEAF, 2 * LEAF)) ?? Buffer.alloc(0);
    let asked: unknown;
    const { ended } = await receiveFrom(
      t,
      async (connection) => {
        await sendStored(connection, 0, COMPRESSED, 1);
        await sendStored(connection, 1, zstd, 0);
        await sendStored(
          connection,
          2,
          codecOf('lz4')?.compress(CONTENTS.subarray(2 * LEAF, 3 * LEAF)) ?? COMPRESSED,
          0,
        );
        await sendStored(connection, 3, codecOf('zstd')?.compress(CONTENTS.subarray(3 * LEAF, 4 * LEAF)) ?? zstd, 1);
        for (let leaf = 4; leaf < LEAVES; leaf++) await sendLeavesOf(connection, [leaf]);
        await connection.sendControl({ kind: 'end', root: NO_DIGEST, summary: SUMMARY });
        asked = (await connection.expect('resend')).leaves;
        await connection.abort(BallastError.from(new Error('enough')));
      },
      undefined,
      { compress: 'lz4', offers: ['zstd'] },
    );
    t.true(ended instanceof BallastError);
    t.deepEqual(asked, [
      [0, 0],
      [0, 1],
    ]);
  },
);

test('a sender of a leaf that takes more than its pages do, or nothing at all, is given up', async (t) => {
  for (const stored of [Buffer.alloc(LEAF + 1), Buffer.alloc(0)]) {
    const { ended } = await receiveFrom(t, async (connection) => sendStored(connection, 0, stored), undefined, {
      compress: 'lz4',
    });
    t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  }
});

test('a sender that packs more pages into a frame than a frame may have is given up', async (t) => {
  const { ended } = await receiveFrom(
    t,
    async (connection) => {
      const table = new LeafTable(17);
      for (let leaf = 0; leaf < 17; leaf++)
        table.write(leaf, leaf, 0xffff, 0xffff, COMPRESSED.length, digestOf(LEAF_0));
      const pages = Buffer.concat(Array.from({ length: 17 }, () => COMPRESSED));
      await connection.send({ type: FrameType.leaves, count: 17, base: 0, checked: table.bytes, pages });
    },
    undefined,
    { compress: 'lz4' },
  );
  t.is(codeOf(ended), 'E_PROTOCOL', messageOf(ended));
  t.regex(messageOf(ended), /carry 1114112 bytes of pages; at most 1048576/);
});

(isAvailable('zstd') ? test.skip : test)('a sender that compresses with what this side lacks is told so', async (t) => {
  const { ended, copy } = await receiveFrom(t, () => Promise.resolve(), undefined, { compress: 'zstd' });
  t.is(codeOf(ended), 'E_MISMATCH', messageOf(ended));
  t.regex(
    messageOf(ended),
    /compresses with zstd, which Node.js v\S+ of the receiver does not have; run 22.15 or newer/,
  );
  t.false(existsSync(copy));
});
