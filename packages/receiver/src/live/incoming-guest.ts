import { createConnection, type Socket } from 'node:net';
import { readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import {
  QmpClient,
  QmpRefusal,
  findGuestMemory,
  migrationOf,
  privateSocketPath,
  putBack,
  runStateOf,
  setForDeviceState,
  type GuestMemoryFile,
  type SavedSettings,
} from '@ballast/shared/qmp';

/** Milliseconds between two questions to QEMU whether it has loaded its state: they add to the downtime. */
const POLL_MS = 2;
const LOAD_TIMEOUT_MS = 60_000;
/** Taking the locks of disks may wait for a slow storage. */
const RESUME_TIMEOUT_MS = 30_000;
const QUIT_TIMEOUT_MS = 5000;

/**
 * A QEMU that waits for a guest (`-incoming defer`), on memory files of its own:
 *
 *                     prepare()          load()             resume()
 *        waiting  ------------->  open  -------->  loaded  ---------->  running
 *           |                       |                 |
 *           | (left as it is)       +---- quit() -----+
 *
 * A guest that was prepared cannot be used for another move: when this one fails it is quit, so that it never runs.
 */
export class IncomingGuest {
  /** Its memory, by ascending id. */
  readonly files: readonly GuestMemoryFile[];
  readonly #path: string;
  readonly #pid: number;
  #qmp: QmpClient;
  #settings: SavedSettings | undefined;
  #feed: { readonly socket: Socket; readonly path: string } | undefined;
  #feedFailure: Error | undefined;
  #prepared = false;

  private constructor(qmp: QmpClient, files: readonly GuestMemoryFile[], pid: number) {
    this.#path = qmp.path;
    this.#qmp = qmp;
    this.files = files;
    this.#pid = pid;
  }

  /** @throws BallastError QMP, GUEST; ABORTED by the signal */
  static async open(path: string, signal?: AbortSignal): Promise<IncomingGuest> {
    const qmp = await QmpClient.connect(path, undefined, signal);
    try {
      await checkWaits(qmp);
      const { files, pid } = await findGuestMemory(qmp);
      return new IncomingGuest(qmp, files, pid);
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  /** Whether QEMU was told to take device state in: from then on it can only be resumed or quit. */
  get isPrepared(): boolean {
    return this.#prepared;
  }

  /**
   * Looks again whether QEMU waits: the memory of one that has ended may be another guest's by now.
   * @throws BallastError QMP, GUEST
   */
  async checkWaits(): Promise<void> {
    await checkWaits(this.#qmp);
  }

  /**
   * Makes QEMU listen for device state, and connects.
   * @throws BallastError QMP
   */
  async prepare(): Promise<void> {
    if (this.#feed !== undefined) return;
    this.#settings = await setForDeviceState(this.#qmp, 'incoming');
    const path = privateSocketPath(this.#path);
    this.#prepared = true;
    // While it waits this only says that the guest is not to run by itself when it has come, whatever its state says.
    await this.#qmp.execute('stop');
    await this.#qmp.execute('migrate-incoming', { uri: `unix:${path}` });
    const socket = createConnection(path);
    this.#feed = { socket, path };
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) => {
        reject(
          new BallastError(
            ErrorCode.QMP,
            `QEMU at ${this.#path} cannot be given the device state through ${path} (${systemCode(error) ?? error.message})`,
            { cause: error },
          ),
        );
      });
    });
    // What QEMU thinks of the state it says on the monitor; a pipe that breaks is only how one notices.
    socket.removeAllListeners('error');
    socket.on('error', (error) => {
      this.#feedFailure = error;
    });
  }

  /**
   * Gives QEMU the next bytes of the device state.
   * @throws BallastError QMP, GUEST with QEMU's reason
   */
  async feed(bytes: Buffer): Promise<void> {
    const socket = this.#feed?.socket;
    if (socket === undefined) throw new BallastError(ErrorCode.INTERNAL, 'no device state was expected');
    await new Promise<void>((resolve) => {
      socket.write(bytes, () => {
        resolve();
      });
    });
    if (this.#feedFailure !== undefined) await this.#checkLoaded();
  }

  /**
   * Waits until QEMU has taken all of the state in. The guest stands still then.
   * @throws BallastError QMP; GUEST with QEMU's reason when it cannot
   */
  async load(): Promise<void> {
    this.#feed?.socket.end();
    const deadline = performance.now() + LOAD_TIMEOUT_MS;
    while (!(await this.#checkLoaded())) {
      if (performance.now() > deadline)
        throw new BallastError(ErrorCode.QMP, `QEMU at ${this.#path} did not load the device state in time`);
      await sleep(POLL_MS);
    }
    const { status, running } = await runStateOf(this.#qmp);
    if (running) {
      throw new BallastError(
        ErrorCode.GUEST,
        `the guest at ${this.#path} runs (${status}) before it was told to; it must not be used`,
      );
    }
    await this.#putBack();
  }

  /**
   * Lets the guest run.
   * @throws BallastError GUEST when QEMU refused and the guest surely never ran; QMP when nobody can tell
   */
  async resume(): Promise<void> {
    try {
      // A QEMU that is asked first, and does not answer, was surely never told to run its guest.
      await this.#qmp.execute('query-status', {}, RESUME_TIMEOUT_MS);
    } catch (error) {
      throw new BallastError(ErrorCode.GUEST, `the guest cannot run here: ${BallastError.from(error).message}`, {
        cause: error,
      });
    }
    try {
      await this.#qmp.execute('cont', {}, RESUME_TIMEOUT_MS);
    } catch (error) {
      const refused = error instanceof BallastError && error.cause instanceof QmpRefusal;
      if (!refused || (await runStateOf(this.#qmp)).running) throw error;
      throw new BallastError(ErrorCode.GUEST, `the guest cannot run here: ${error.message}`, { cause: error });
    }
  }

  /**
   * Makes sure that the guest never runs here: QEMU is quit, by force where it does not listen.
   * @returns whether it is gone
   */
  async quit(): Promise<boolean> {
    this.#dropFeed();
    try {
      if (this.#qmp.failure !== undefined) this.#qmp = await QmpClient.connect(this.#path, QUIT_TIMEOUT_MS / 5);
      await this.#qmp.execute('quit', {}, QUIT_TIMEOUT_MS);
    } catch {
      // It is gone already, or cannot be spoken to.
    }
    this.#qmp.close();
    if (await this.#isGone(QUIT_TIMEOUT_MS)) return true;
    try {
      process.kill(this.#pid, 'SIGKILL');
    } catch {
      // Not ours to kill, or gone in this moment: what follows tells.
    }
    return await this.#isGone(QUIT_TIMEOUT_MS);
  }

  /** Lets go of the monitor. A guest that was never prepared goes on waiting. */
  close(): void {
    this.#dropFeed();
    this.#qmp.close();
  }

  async #isGone(patienceMs: number): Promise<boolean> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      try {
        process.kill(this.#pid, 0);
      } catch (error) {
        if (systemCode(error) === 'ESRCH') return true;
      }
      if (isZombie(this.#pid)) return true;
      if (performance.now() > deadline) return false;
      await sleep(20);
    }
  }

  /** @returns whether QEMU is done; @throws BallastError GUEST, QMP when it failed or ended */
  async #checkLoaded(): Promise<boolean> {
    const { status, reason } = await migrationOf(this.#qmp);
    if (status === 'failed') {
      throw new BallastError(
        ErrorCode.GUEST,
        `QEMU at ${this.#path} cannot take the device state (${reason ?? 'it says why on its stderr'}); start it with the same machine and devices as the source`,
      );
    }
    return status === 'completed';
  }

  async #putBack(): Promise<void> {
    if (this.#settings !== undefined) await putBack(this.#qmp, this.#settings);
    this.#settings = undefined;
  }

  #dropFeed(): void {
    if (this.#feed === undefined) return;
    this.#feed.socket.destroy();
    // QEMU removes it when someone has connected.
    rmSync(this.#feed.path, { force: true });
  }
}

/** @throws BallastError QMP; GUEST when QEMU does not wait for a guest */
async function checkWaits(qmp: QmpClient): Promise<void> {
  const [{ status }, migration] = [await runStateOf(qmp), await migrationOf(qmp)];
  if (status === 'inmigrate' && migration.status === 'none') return;
  throw new BallastError(
    ErrorCode.GUEST,
    `QEMU at ${qmp.path} does not wait for a guest (it is in state '${status}'); start it with the options of the source and -incoming defer`,
  );
}

/** A process that has ended, and whose parent has not noticed yet. */
function isZombie(pid: number): boolean {
  try {
    // The state follows the name in parentheses, which may hold anything.
    return readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .startsWith('Z');
  } catch {
    return true;
  }
}
