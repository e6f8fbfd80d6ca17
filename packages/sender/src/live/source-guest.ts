import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import {
  QmpClient,
  QmpRefusal,
  findGuestMemory,
  isMigrating,
  migrationOf,
  putBack,
  readSettings,
  runStateOf,
  setForDeviceState,
  type GuestMemory,
  type SavedSettings,
} from '@ballast/shared/qmp';
import { takeDeviceState } from './device-state.js';
import { restoreGuest, type StreamStage } from './restore-guest.js';

const qomSchema = v.array(v.looseObject({ name: v.string(), type: v.string() }));
const balloonSchema = v.looseObject({ actual: v.pipe(v.number(), v.safeInteger()) });

/** Devices that read or write guest memory by themselves at addresses that they have pinned: punching breaks them. */
const PINNING = /^child<(vfio-|vhost-vdpa|pvrdma)/;
/** Where QEMU keeps the devices that users add: with a name and without. */
const DEVICE_FOLDERS = ['/machine/peripheral', '/machine/peripheral-anon'];

/** States of a guest that can be moved, beside running. */
const PAUSED_STATES: ReadonlySet<string> = new Set(['paused', 'prelaunch']);

/**
 * What changes memory behind the back of a move, once the guest was stopped: somebody else lets it run, or resets it,
 * through another monitor. That is seen however short it was.
 */
const DISTURBANCES: ReadonlySet<string> = new Set(['RESUME', 'RESET']);

const QUIT_TIMEOUT_MS = 5000;

/**
 * The running QEMU that is to be moved, as far as its monitor goes.
 *
 *       running --stop()--> paused --saveDeviceState()--> postmigrate --quit()--> gone
 *          ^                   |                              |
 *          +------ goOn() -----+------------------------------+
 *
 * Whatever is set is put back as soon as it has served, and again by goOn().
 */
export class SourceGuest {
  readonly path: string;
  readonly memory: GuestMemory;
  /** Bytes that the guest has while its balloon is as it is; undefined where it has no balloon. */
  readonly balloonActualBytes: number | undefined;
  /** What is put back in the end. */
  readonly settings: SavedSettings;
  #qmp: QmpClient;
  #runs: boolean;
  /** Whether we have stopped it, or may have, and changed settings, or may have. */
  #isStopped = false;
  #isSet = false;
  #stream: StreamStage = 'none';
  /** What somebody else has done to the guest since it was stopped to be moved. */
  #disturbance: string | undefined;
  /** When QEMU's process began. */
  readonly #start: string | undefined;

  private constructor(
    qmp: QmpClient,
    memory: GuestMemory,
    settings: SavedSettings,
    found: { runs: boolean; balloonActualBytes: number | undefined },
  ) {
    this.path = qmp.path;
    this.#qmp = qmp;
    this.#watch();
    this.memory = memory;
    this.#start = processStart(memory.pid);
    this.settings = settings;
    this.#runs = found.runs;
    this.balloonActualBytes = found.balloonActualBytes;
  }

  /** @throws BallastError QMP; GUEST when it cannot be moved, and why; ABORTED by the signal */
  static async open(path: string, signal?: AbortSignal): Promise<SourceGuest> {
    const qmp = await QmpClient.connect(path, undefined, signal);
    try {
      const { status, running } = await runStateOf(qmp);
      if (!running && !PAUSED_STATES.has(status)) {
        throw new BallastError(
          ErrorCode.GUEST,
          status === 'postmigrate'
            ? `the guest at ${path} stands still after an earlier migration; if it runs nowhere else, resume it with 'cont' first`
            : `the guest at ${path} is in state '${status}'; expected one that is running or paused`,
        );
      }
      await refuseOtherMigration(qmp);
      await refusePinnedMemory(qmp);
      const memory = await findGuestMemory(qmp);
      const settings = await readSettings(qmp, 'outgoing');
      return new SourceGuest(qmp, memory, settings, { runs: running, balloonActualBytes: await balloonOf(qmp) });
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  /** Whether the guest ran before it was stopped here, and so is to run again, here or there. */
  get runs(): boolean {
    return this.#runs;
  }

  /** What the balloon leaves to the guest now, in bytes. */
  async balloonActual(): Promise<number | undefined> {
    return await balloonOf(this.#qmp);
  }

  /** Looks again whether the guest runs: somebody else may have paused or resumed it. */
  async refreshRuns(): Promise<boolean> {
    const state = await runStateOf(this.#qmp);
    if (!state.running) this.#checkPaused(state.status);
    this.#runs = state.running;
    return state.running;
  }

  /**
   * Stops the guest for its move.
   * @throws BallastError QMP; GUEST when it did not stop in a state that can be moved
   */
  async stop(): Promise<void> {
    this.#disturbance = undefined;
    this.#isStopped = true;
    await this.#qmp.execute('stop');
    // A guest that has panicked, say, is stopped already, and is so there, too.
    this.#checkPaused((await runStateOf(this.#qmp)).status);
    // It was paused, and somebody has resumed it at the last moment.
    if (this.#takeDisturbance() === 'RESUME') this.#runs = true;
  }

  /**
   * Stops a guest for a moment, unless it stands still already: then somebody else has paused it.
   * @returns whether it was stopped, so that `cont` is due
   * @throws BallastError QMP
   */
  async pauseBriefly(): Promise<boolean> {
    if (!(await runStateOf(this.#qmp)).running) return false;
    this.#isStopped = true;
    await this.#qmp.execute('stop');
    return true;
  }

  /**
   * Resumes a guest that stands still between two of our own stops.
   * @throws BallastError QMP; GUEST when it went elsewhere meanwhile, say
   */
  async cont(): Promise<void> {
    const state = await runStateOf(this.#qmp);
    if (!state.running) this.#checkPaused(state.status);
    await this.#qmp.execute('cont');
    this.#isStopped = false;
  }

  /** @throws BallastError GUEST when the guest was let run or reset after its stop: its memory is not what was sent */
  async checkStandsStill(): Promise<void> {
    const { running } = await runStateOf(this.#qmp);
    if (!running && this.#disturbance === undefined) return;
    throw new BallastError(
      ErrorCode.GUEST,
      `the guest at ${this.path} was ${this.#disturbance === 'RESET' ? 'reset' : 'let run'} by somebody else while it was moved`,
    );
  }

  /**
   * The state of all devices, as QEMU writes it for another QEMU. The guest must be stopped; QEMU has given the locks of
   * its disks back afterwards.
   * @throws BallastError QMP, GUEST
   */
  async saveDeviceState(): Promise<Buffer[]> {
    await this.checkStandsStill();
    await refuseOtherMigration(this.#qmp);
    this.#checkPaused((await runStateOf(this.#qmp)).status);
    this.#isSet = true;
    await setForDeviceState(this.#qmp, 'outgoing');
    this.#stream = 'flows';
    let state: Buffer[];
    try {
      state = await takeDeviceState(this.#qmp);
    } catch (error) {
      // Somebody else was faster.
      if (error instanceof BallastError && error.cause instanceof QmpRefusal) this.#stream = 'none';
      throw error;
    }
    this.#stream = 'saved';
    // Not later: a forgotten x-ignore-shared makes the next ordinary migration send no memory.
    await putBack(this.#qmp, this.settings);
    this.#isSet = false;
    await this.checkStandsStill();
    return state;
  }

  /** @throws BallastError GUEST unless QEMU says that all of its state was sent, and the guest stands still */
  async checkSaved(): Promise<void> {
    await this.checkStandsStill();
    const { status, reason } = await migrationOf(this.#qmp);
    if (status !== 'completed')
      throw new BallastError(ErrorCode.GUEST, `QEMU says that its state was not sent whole (${reason ?? status})`);
  }

  /**
   * Puts everything back as it was found, and lets the guest run if we have stopped it. Somebody else's stop is left
   * alone.
   * @returns how it is then, in words
   * @throws BallastError QMP when QEMU does not listen; the guest may stand still then
   */
  async goOn(): Promise<string> {
    if (!this.#isStopped && !this.#isSet) return this.#runs ? 'runs on here' : 'stands still here, as before';
    if (this.#qmp.failure !== undefined) {
      this.#qmp = await QmpClient.connect(this.path);
      this.#watch();
      await checkSameQemu(this.#qmp, { pid: this.memory.pid, start: this.#start });
    }
    const settings = this.#isSet ? this.settings : undefined;
    const { how } = await restoreGuest(
      this.#qmp,
      { settings, ran: this.#runs, mayBeStopped: this.#isStopped, stream: this.#stream },
      this.memory.files.map(({ bytes }) => bytes),
    );
    this.#isStopped = false;
    this.#isSet = false;
    this.#stream = 'none';
    return how;
  }

  /** Ends QEMU. @throws BallastError QMP when it does not end */
  async quit(): Promise<void> {
    await this.#qmp.execute('quit', {}, QUIT_TIMEOUT_MS);
  }

  close(): void {
    this.#qmp.close();
  }

  /** @throws BallastError GUEST unless the guest stands still as one that was stopped, and not as one that has gone, say */
  #checkPaused(status: string): void {
    if (PAUSED_STATES.has(status)) return;
    throw new BallastError(ErrorCode.GUEST, `the guest at ${this.path} went to state '${status}' while it was moved`);
  }

  #takeDisturbance(): string | undefined {
    const disturbance = this.#disturbance;
    this.#disturbance = undefined;
    return disturbance;
  }

  #watch(): void {
    this.#qmp.onEvent = (name) => {
      if (DISTURBANCES.has(name)) this.#disturbance ??= name;
    };
  }
}

/**
 * Makes sure that a monitor is still of the QEMU of which it was: another one may have taken its name.
 * @throws BallastError GUEST, QMP
 */
export async function checkSameQemu(
  qmp: QmpClient,
  { pid, start }: { readonly pid: number; readonly start: string | undefined },
): Promise<void> {
  if (processStart(pid) !== start)
    throw new BallastError(ErrorCode.GUEST, `the QEMU whose guest was moved (process ${pid}) has ended`);
  if (qmp.peer?.pid === pid) return;
  // Who listens is another process than QEMU where something stands between, or has made the socket for it.
  const found = await findGuestMemory(qmp).catch((error: unknown) => BallastError.from(error));
  if (found instanceof BallastError || found.pid !== pid) {
    throw new BallastError(
      ErrorCode.GUEST,
      `${qmp.path} is the monitor of another QEMU than the one whose guest was moved (process ${pid}); nothing was changed there`,
      found instanceof BallastError ? { cause: found } : {},
    );
  }
}

/** When a process began, in clock ticks since the host did: with its id this names a process for good. */
export function processStart(pid: number): string | undefined {
  try {
    // Field 22; the fields after the name in parentheses begin with field 3.
    return readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ')[19];
  } catch {
    return undefined;
  }
}

/** @throws BallastError GUEST while somebody else migrates the guest */
async function refuseOtherMigration(qmp: QmpClient): Promise<void> {
  if (!(await isMigrating(qmp))) return;
  throw new BallastError(
    ErrorCode.GUEST,
    `QEMU at ${qmp.path} migrates its guest already, for somebody else; wait for that, or cancel it`,
  );
}

async function refusePinnedMemory(qmp: QmpClient): Promise<void> {
  for (const path of DEVICE_FOLDERS) {
    const devices = await qmp.query('qom-list', qomSchema, { path });
    const pinning = devices.find(({ type }) => PINNING.test(type));
    if (pinning === undefined) continue;
    throw new BallastError(
      ErrorCode.GUEST,
      `the guest has the device '${pinning.name}' (${pinning.type.slice(6, -1)}), which writes its memory behind QEMU's back; unplug it first`,
    );
  }
}

async function balloonOf(qmp: QmpClient): Promise<number | undefined> {
  try {
    return (await qmp.query('query-balloon', balloonSchema)).actual;
  } catch (error) {
    // A guest without a balloon.
    if (qmp.failure !== undefined) throw error;
    return undefined;
  }
}
