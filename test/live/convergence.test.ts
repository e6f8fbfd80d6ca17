import { fc, testProp } from '@fast-check/ava';
import { Convergence, type RoundFigures } from '@ballast/sender/convergence';
import test from 'ava';

const MIB = 2 ** 20;
/** Bytes a second. */
const RATE = 1000 * MIB;
const LIMIT_MS = 300;
const MANY_ROUNDS = 1000;

/** A round of a guest that changes so much a second, whose memory takes so long to read. */
function roundOf(changing: number, { passSeconds = 0.1, seconds = 1 } = {}): RoundFigures {
  return { passSeconds, sentBytes: changing * seconds, dirtySeconds: seconds, seconds };
}

const anyRound = fc.record({
  passSeconds: fc.double({ min: 0, max: 10, noNaN: true }),
  sentBytes: fc.nat({ max: 2 ** 40 }),
  dirtySeconds: fc.double({ min: 0, max: 100, noNaN: true }),
  seconds: fc.double({ min: 0, max: 100, noNaN: true }),
});
const anyRate = fc.double({ min: 0, max: 2 ** 40, noNaN: true });

test('before anything is known a stop is neither short enough nor out of reach', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  t.is(convergence.expectedMs, Infinity);
  t.false(convergence.isReached);
  t.false(convergence.isHopeless);
});

test('a guest that changes little is stopped after a sample', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  convergence.noteSample({ passSeconds: 0.1, changedBytes: 8 * MIB, dirtySeconds: 1 }, RATE);
  t.true(convergence.isReached);
  t.is(convergence.dirtyBytesPerSecond, 8 * MIB);
});

test('a guest that has changed more than the link carries in time needs another round', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  convergence.noteSample({ passSeconds: 0.1, changedBytes: 300 * MIB, dirtySeconds: 60 }, RATE);
  t.false(convergence.isReached);
  convergence.note({ passSeconds: 0.1, sentBytes: 300 * MIB, dirtySeconds: 60, seconds: 0.5 }, RATE);
  t.true(convergence.isReached, 'what changes in half a second is little');
});

test('a guest that stands still may be stopped at any time', (t) => {
  const convergence = new Convergence(0, 1);
  convergence.noteStandstill();
  t.true(convergence.isReached);
});

test('a memory that takes too long to read is out of reach however little changes, after two passes', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  convergence.note(roundOf(MIB, { passSeconds: 1 }), RATE);
  t.false(convergence.isHopeless, 'the first pass may have been slow by chance');
  convergence.note(roundOf(MIB, { passSeconds: 1 }), RATE);
  t.true(convergence.isHopeless);
});

test('one slow pass among others does not count', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  convergence.note(roundOf(MIB, { passSeconds: 0.1 }), RATE);
  convergence.note(roundOf(MIB, { passSeconds: 2 }), RATE);
  t.true(convergence.isReached);
});

test('a guest that writes as fast as it is sent is given up after three rounds without progress', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  convergence.note(roundOf(RATE), RATE);
  for (let round = 0; round < 3; round++) {
    t.false(convergence.isHopeless);
    convergence.note(roundOf(RATE), RATE);
  }
  t.true(convergence.isHopeless);
});

test('as long as each round is shorter than the one before there is hope', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  for (let seconds = 100; seconds > 1; seconds *= 0.8) {
    convergence.note(roundOf(RATE / 2, { seconds }), RATE);
    t.false(convergence.isHopeless);
  }
});

test('there is new hope when the guest was slowed down', (t) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  for (let round = 0; round < 4; round++) convergence.note(roundOf(RATE), RATE);
  t.true(convergence.isHopeless);
  convergence.hopeAgain();
  t.false(convergence.isHopeless);
});

test('a guest of which one round may be made is given up after the sample, unless it can be stopped then', (t) => {
  const convergence = new Convergence(LIMIT_MS, 1);
  convergence.noteSample({ passSeconds: 0.1, changedBytes: 300 * MIB, dirtySeconds: 60 }, RATE);
  t.true(convergence.isHopeless);
  convergence.noteSample({ passSeconds: 0.1, changedBytes: MIB, dirtySeconds: 60 }, RATE);
  t.false(convergence.isHopeless);
});

test('no more rounds are made than allowed, the first included', (t) => {
  const convergence = new Convergence(LIMIT_MS, 3);
  convergence.note(roundOf(RATE, { seconds: 10 }), RATE);
  t.false(convergence.isHopeless);
  convergence.note(roundOf(RATE, { seconds: 5 }), RATE);
  t.true(convergence.isHopeless);
});

testProp(
  'a stop is never both short enough and out of reach',
  [fc.array(anyRound, { minLength: 1 }), anyRate],
  (t, rounds, rate) => {
    const convergence = new Convergence(LIMIT_MS, 5);
    for (const round of rounds) {
      convergence.note(round, rate);
      t.false(convergence.isReached && convergence.isHopeless);
    }
  },
);

testProp(
  'whatever rounds show, they come to an end',
  [fc.array(anyRound, { minLength: 5 }), anyRate],
  (t, rounds, rate) => {
    const convergence = new Convergence(LIMIT_MS, 5);
    for (const round of rounds) convergence.note(round, rate);
    t.true(convergence.isReached || convergence.isHopeless);
  },
);

testProp('the expected downtime is no shorter than reading all memory', [anyRound, anyRate], (t, round, rate) => {
  const convergence = new Convergence(LIMIT_MS, MANY_ROUNDS);
  convergence.note(round, rate);
  t.true(convergence.expectedMs >= round.passSeconds * 1000);
});

testProp('a slower link never makes the expected downtime shorter', [anyRound, anyRate, anyRate], (t, round, a, b) => {
  const [slow, fast] = [new Convergence(LIMIT_MS, MANY_ROUNDS), new Convergence(LIMIT_MS, MANY_ROUNDS)];
  slow.note(round, Math.min(a, b));
  fast.note(round, Math.max(a, b));
  t.true(slow.expectedMs >= fast.expectedMs);
});
