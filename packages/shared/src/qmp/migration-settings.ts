import * as v from 'valibot';
import { BallastError, ErrorCode } from '../errors.js';
import type { QmpClient } from './client.js';

const capabilitiesSchema = v.array(v.looseObject({ capability: v.string(), state: v.boolean() }));
const parametersSchema = v.record(v.string(), v.unknown());

/** What QEMU's migration was set to before we touched it: only what we change. */
export interface SavedSettings {
  /** Capabilities by name. */
  readonly capabilities: Readonly<Record<string, boolean>>;
  /** Parameters by name. */
  readonly parameters: Readonly<Record<string, number>>;
}

/** Which side of QEMU's stream this QEMU is. */
export type StreamSide = 'outgoing' | 'incoming';

/**
 * Leaves all memory that a file holds out of QEMU's stream. A forgotten one makes the next ordinary migration send no
 * memory at all.
 */
const IGNORE_SHARED = 'x-ignore-shared';
/** The destination takes no lock of a disk before `cont`: without it the source could not go on after a failure. */
const LATE_ACTIVATE = 'late-block-activate';
/**
 * Capabilities that are in the way: those that want more than the one one-way stream that we carry, stop on the way, or
 * let go of the source's memory.
 */
const IN_THE_WAY: ReadonlySet<string> = new Set([
  'multifd',
  'postcopy-ram',
  'postcopy-preempt',
  'return-path',
  'switchover-ack',
  'pause-before-switchover',
  'compress',
  'xbzrle',
  'release-ram',
  'x-colo',
  'background-snapshot',
  'zero-copy-send',
  'rdma-pin-all',
  'block',
  'mapped-ram',
]);

/** Bytes a second that the stream of the device state may have: the guest stands still while it flows. */
const STATE_BANDWIDTH = 2 ** 40;

/**
 * Sets what a stream of device state needs.
 * @returns what was there before, for `putBack`
 * @throws BallastError QMP when this QEMU does not know a capability that is needed
 */
export async function setForDeviceState(qmp: QmpClient, side: StreamSide): Promise<SavedSettings> {
  const saved = await readSettings(qmp, side);
  const capabilities = Object.entries(saved.capabilities).map(([capability]) => ({
    capability,
    state: !IN_THE_WAY.has(capability),
  }));
  await qmp.execute('migrate-set-capabilities', { capabilities });
  if (side === 'outgoing') await qmp.execute('migrate-set-parameters', { 'max-bandwidth': STATE_BANDWIDTH });
  return saved;
}

/**
 * What `setForDeviceState` is going to change, as it is now.
 * @throws BallastError QMP when this QEMU does not know a capability that is needed
 */
export async function readSettings(qmp: QmpClient, side: StreamSide): Promise<SavedSettings> {
  const known = new Map((await capabilitiesOf(qmp)).map(({ capability, state }) => [capability, state]));
  const needed = side === 'incoming' ? [IGNORE_SHARED, LATE_ACTIVATE] : [IGNORE_SHARED];
  for (const name of needed) {
    if (known.has(name)) continue;
    throw new BallastError(
      ErrorCode.QMP,
      `QEMU at ${qmp.path} does not know the migration capability ${name}; a live move needs QEMU 4.0 or newer`,
    );
  }
  const changes = [...known].filter(([name, state]) =>
    needed.includes(name) ? !state : IN_THE_WAY.has(name) && state,
  );
  const parameters: Record<string, number> = {};
  if (side === 'outgoing') {
    const bandwidth = (await qmp.query('query-migrate-parameters', parametersSchema))['max-bandwidth'];
    if (typeof bandwidth === 'number') parameters['max-bandwidth'] = bandwidth;
  }
  return { capabilities: Object.fromEntries(changes), parameters };
}

/**
 * The part of `saved` that `setForDeviceState` has changed, and that nobody has put back or set otherwise since.
 * @throws BallastError QMP
 */
export async function stillSet(qmp: QmpClient, { capabilities, parameters }: SavedSettings): Promise<SavedSettings> {
  const now = new Map((await capabilitiesOf(qmp)).map(({ capability, state }) => [capability, state]));
  const bandwidth = (await qmp.query('query-migrate-parameters', parametersSchema))['max-bandwidth'];
  return {
    capabilities: Object.fromEntries(Object.entries(capabilities).filter(([name, state]) => now.get(name) !== state)),
    parameters: bandwidth === STATE_BANDWIDTH ? parameters : {},
  };
}

/** Whether migrations leave out all memory that a file holds. @throws BallastError QMP */
export async function ignoresShared(qmp: QmpClient): Promise<boolean> {
  return (await capabilitiesOf(qmp)).some(({ capability, state }) => capability === IGNORE_SHARED && state);
}

async function capabilitiesOf(qmp: QmpClient): Promise<v.InferOutput<typeof capabilitiesSchema>> {
  return await qmp.query('query-migrate-capabilities', capabilitiesSchema);
}

/**
 * Puts back what was there before. May be called twice.
 * @throws BallastError QMP
 */
export async function putBack(qmp: QmpClient, { capabilities, parameters }: SavedSettings): Promise<void> {
  const list = Object.entries(capabilities).map(([capability, state]) => ({ capability, state }));
  if (list.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities: list });
  if (Object.keys(parameters).length > 0) await qmp.execute('migrate-set-parameters', { ...parameters });
}
