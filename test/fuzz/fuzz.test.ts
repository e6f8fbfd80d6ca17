import test from 'ava';
import { fuzz, type Part } from './fuzz.js';

/** The same cases each time: what they find is a regression. `npm run fuzz` is the long one. */
const SEED = 20160322;

function fuzzTest(title: string, part: Part, cases: number): void {
  test.serial(title, async (t) => {
    const { findings, tally } = await fuzz({ part, cases, seed: SEED, forMs: 15_000 });
    t.deepEqual(findings, []);
    if (part !== 'decoder') t.true((tally['published'] ?? 0) > 0, 'some dialogues must be right to the end');
  });
}

fuzzTest('any bytes are frames or are refused with a documented error', 'decoder', 20_000);
fuzzTest('whatever a sender says, a receiver publishes what was proved right or nothing', 'receiver', 600);
fuzzTest('whatever a receiver says, a sender succeeds only on its word for the true root', 'sender', 600);
fuzzTest(
  'whatever a sender says on its channels, a receiver publishes what was proved right or nothing',
  'receiver-channels',
  80,
);
fuzzTest(
  'whatever a receiver says on channels, a sender succeeds only on its word for the true root',
  'sender-channels',
  80,
);
fuzzTest(
  'whatever a live sender says, a guest runs only on its commit, and on memory that was proved',
  'live-receiver',
  60,
);
fuzzTest(
  'whatever a live receiver says, a guest goes on at the source unless it was committed, and then only on its word',
  'live-sender',
  30,
);
