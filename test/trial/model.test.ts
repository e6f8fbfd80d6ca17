import test from 'ava';
import {
  STRATEGY_NAMES,
  evenProfile,
  predict,
  type MachineRates,
  type MemoryShape,
  type ModelInput,
  type Prediction,
  type StrategyName,
} from '@ballast/sender';

const GIB = 2 ** 30;
const GBIT = 1e9 / 8;

/** The mail's guest: 16 GiB, of which 12 GiB are ballooned out. */
const MAIL: MemoryShape = { memoryBytes: 16 * GIB, inUse: 0.025, zero: 0.225 };
/** A machine that scans as fast as that of the mail. */
const MACHINE: MachineRates = {
  dataScanRate: (12 * GIB) / 1.789,
  zeroScanRate: (12 * GIB) / 1.789,
  askSeconds: 0.32,
  hashRate: 4e9,
  cpuSecondsPerByte: 1 / 3e9,
  writeWhiteoutSeconds: 20e-9,
  readWhiteoutSeconds: 20e-9,
};

function predictions(
  shape: MemoryShape,
  { bandwidth = GBIT, pageSize = 4096, ...options }: Partial<ModelInput> & { bandwidth?: number } = {},
): Record<StrategyName, Prediction> {
  const profile = evenProfile(shape, pageSize);
  const link = { bytesPerSecond: bandwidth, roundTripSeconds: 0 };
  const entries = STRATEGY_NAMES.map((strategy) => [
    strategy,
    predict({ profile, strategy, link, machine: MACHINE, threads: 1, pageSize, headerSize: 9, ...options }),
  ]);
  return Object.fromEntries(entries) as Record<StrategyName, Prediction>;
}

test("the mail's guest: what the scan of the balloon costs, and what its whiteouts weigh", (t) => {
  const { unmodified, consult, skip, bitmap } = predictions(MAIL);
  const balloonPages = (12 * GIB) / 4096;
  t.is(consult.wire.whiteouts - skip.wire.whiteouts, 9 * balloonPages);
  t.is(unmodified.wire.whiteouts, consult.wire.whiteouts);
  t.is(bitmap.wire.whiteouts, 0);
  const scan = unmodified.emptyScanSeconds - consult.emptyScanSeconds;
  t.true(Math.abs(scan - 1.789) < 0.01, `${scan}`);
  t.is(skip.emptyScanSeconds, consult.emptyScanSeconds);
  // On a link that is fast enough not to hide it, the order is that of the mail.
  const fast = predictions(MAIL, { bandwidth: 20 * GBIT });
  t.true(fast.unmodified.seconds > fast.consult.seconds + 1);
  t.true(fast.consult.seconds > fast.skip.seconds && fast.skip.seconds >= fast.bitmap.seconds);
});

test('a whiteout is three decimal orders smaller than a page, and a map two more', (t) => {
  const { consult, bitmap } = predictions({ memoryBytes: 16 * GIB, inUse: 0.1, zero: 0 });
  // The mail: with a tenth in use, whiteouts are on the order of a percent of all that is transferred.
  const share = consult.wire.whiteouts / consult.wire.total;
  t.true(share > 0.01 && share < 0.03, `${share}`);
  t.true(bitmap.wire.map < consult.wire.whiteouts / 100);
});

test('a link that is slower than both sides decides alone', (t) => {
  for (const [name, { seconds, wire }] of Object.entries(predictions(MAIL, { bandwidth: GBIT / 100 }))) {
    const byBytes = wire.total / (GBIT / 100);
    t.true(Math.abs(seconds - byBytes) / byBytes < 0.02, `${name}: ${seconds} s for ${byBytes} s`);
  }
});

test('a link that costs nothing leaves the slower side', (t) => {
  for (const [name, prediction] of Object.entries(predictions(MAIL, { bandwidth: 1e15 }))) {
    const slower = Math.max(prediction.senderSeconds, prediction.receiverSeconds);
    t.true(prediction.seconds >= slower && prediction.seconds < MACHINE.askSeconds + 1.05 * slower, name);
  }
});

test('twice the bandwidth is never slower, and never more than twice as fast', (t) => {
  for (const factor of [0.25, 0.5, 1, 2, 4, 8]) {
    const slow = predictions(MAIL, { bandwidth: factor * GBIT });
    const fast = predictions(MAIL, { bandwidth: 2 * factor * GBIT });
    for (const name of STRATEGY_NAMES) {
      const ratio = slow[name].seconds / fast[name].seconds;
      t.true(ratio >= 1 && ratio <= 2.001, `${name}: ${ratio}`);
    }
  }
});

test('larger whiteouts, and smaller pages, make the strategies that have them slower on a thin link', (t) => {
  const thin = { bandwidth: GBIT / 10 };
  const plain = predictions(MAIL, thin);
  const large = predictions(MAIL, { ...thin, headerSize: 90 });
  const small = predictions(MAIL, { ...thin, pageSize: 1024 });
  t.is(large.consult.wire.whiteouts, 10 * plain.consult.wire.whiteouts);
  t.true(Math.abs(small.consult.wire.whiteouts / plain.consult.wire.whiteouts - 4) < 0.001);
  t.true(large.consult.seconds > 1.5 * plain.consult.seconds);
  t.true(Math.abs(large.bitmap.seconds - plain.bitmap.seconds) < 1e-9);
});
