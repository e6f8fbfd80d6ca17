export { explainedShare, type Account, type ThreadAccount } from './account.js';
export { ByteCount } from './byte-count.js';
export { CAUSE_NAMES, Cause, type CauseName } from './cause.js';
export { describeMachine, type Machine } from './machine.js';
export { watchPeakMemory } from './peak-memory.js';
export { SideMeasurement } from './side-measurement.js';
export { median, pairedRatio, spread, type Spread } from './statistics.js';
export { RunningStopwatch, measureSwitch, noStopwatch, type Stopwatch } from './stopwatch.js';
