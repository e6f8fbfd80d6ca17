import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { GuestImage } from './guest-image.js';
import { CHURN_VARIABLE, FILL_VARIABLE, STALE_VARIABLE } from './guest-init.js';
import { QmpClient } from './qmp.js';
import { parseSerial, type SerialLog } from './serial-log.js';
import { poll, within } from './wait.js';

/** One memory backend, which is one NUMA node of the guest. */
export interface GuestMemory {
  readonly path: string;
  readonly bytes: number;
}

export interface GuestOptions {
  readonly image: GuestImage;
  /** The guest's whole memory; with two entries the guest has two NUMA nodes. */
  readonly memory: readonly GuestMemory[];
  /** Where the sockets and the logs go, with names that begin with `name`; a short path, as a socket's may have 107 bytes. */
  readonly folder: string;
  readonly name: string;
  /** How much of its memory the guest fills with random bytes, a multiple of 4. */
  readonly fillMiB?: number;
  /** How much memory the guest writes to and frees before it counts: stale bytes for a balloon to take. A multiple of 4. */
  readonly staleMiB?: number;
  /** How much memory the guest writes to all the time. A multiple of 4. */
  readonly churnMiB?: number;
  /** Memory of QEMU's own, as it has without any options; the paths of `memory` mean nothing then. */
  readonly anonymous?: boolean;
  /** Start with no guest in it, for loadDeviceState(). */
  readonly incoming?: boolean;
  /** More arguments for QEMU. */
  readonly devices?: readonly string[];
}

const START_TIMEOUT_MS = 20_000;
/** A guest that has a tenth of a processor needs a minute and more to boot. */
const SERIAL_TIMEOUT_MS = 120_000;
const BALLOON_TIMEOUT_MS = 60_000;
const MIGRATION_TIMEOUT_MS = 30_000;
const QUIT_TIMEOUT_MS = 10_000;

/** A QEMU of our own with the guest of guest-init.ts in it. Whoever starts one calls dispose(), whatever happens. */
export class Guest {
  /** The monitor of the tests. */
  readonly qmp: QmpClient;
  /** A second monitor, for a program under test: QEMU serves one client on each. */
  readonly programQmpPath: string;
  readonly memoryBytes: number;
  readonly #qemu: QemuProcess;

  private constructor(qemu: QemuProcess, qmp: QmpClient, options: GuestOptions) {
    this.#qemu = qemu;
    this.qmp = qmp;
    this.programQmpPath = paths(options).programQmp;
    this.memoryBytes = totalBytes(options.memory);
  }

  static async start(options: GuestOptions): Promise<Guest> {
    const { qmp, serial } = paths(options);
    const qemu = new QemuProcess(qemuArguments(options), serial);
    try {
      // QEMU makes the socket a moment after it started.
      const client = await poll('a QMP connection', START_TIMEOUT_MS, async () => {
        qemu.check();
        return QmpClient.connect(qmp).catch((error: unknown) => {
          if (error instanceof Error && 'code' in error) return undefined;
          throw error;
        });
      });
      return new Guest(qemu, client, options);
    } catch (error) {
      await qemu.kill();
      throw error;
    }
  }

  get pid(): number | undefined {
    return this.#qemu.pid;
  }

  /** What the guest has said so far, as bytes came: the last line may lack its end. */
  async serialText(): Promise<string> {
    return this.#qemu.serialText();
  }

  /** Waits until the guest's words satisfy `enough`. */
  async waitForSerial(
    what: string,
    enough: (log: SerialLog) => boolean,
    timeoutMs = SERIAL_TIMEOUT_MS,
  ): Promise<SerialLog> {
    return poll(`${what} on the serial console`, timeoutMs, async () => {
      this.#qemu.check();
      const log = parseSerial(await this.serialText());
      return enough(log) ? log : undefined;
    }).catch(async (error: unknown) => {
      throw new Error(`no ${what}; the guest last said: ${(await this.serialText()).slice(-2500)}`, { cause: error });
    });
  }

  async waitForTicks(count: number): Promise<SerialLog> {
    return this.waitForSerial(`${count} ticks`, (log) => log.ticks.length >= count);
  }

  /** Takes `bytes` of memory from the guest and waits until the guest has given all of them. */
  async inflateBalloon(bytes: number, timeoutMs = BALLOON_TIMEOUT_MS): Promise<void> {
    const target = this.memoryBytes - bytes;
    await this.qmp.command('balloon', { value: target });
    await poll(`the balloon to hold ${bytes} bytes`, timeoutMs, async () => {
      this.#qemu.check();
      return (await this.balloonBytes()) === bytes ? true : undefined;
    });
  }

  /** How much memory the balloon holds. */
  async balloonBytes(): Promise<number> {
    return this.memoryBytes - Number((await this.qmp.query('query-balloon'))['actual']);
  }

  /** QEMU's word for what the guest does: running, paused, inmigrate, postmigrate… */
  async status(): Promise<string> {
    return String((await this.qmp.query('query-status'))['status']);
  }

  async pause(): Promise<void> {
    await this.qmp.command('stop');
  }

  async cont(): Promise<void> {
    await this.qmp.command('cont');
  }

  /** Pauses the guest and writes everything of it but its memory to a file. */
  async saveDeviceState(path: string): Promise<void> {
    await this.pause();
    await this.#withoutSharedMemory(async () => {
      await this.qmp.command('migrate', { uri: `exec:cat > ${shellQuoted(path)}` });
      await this.migrated();
    });
  }

  /** Takes the state in that saveDeviceState() wrote. The guest is paused then, as it was when it was saved. */
  async loadDeviceState(path: string): Promise<void> {
    await this.#withoutSharedMemory(async () => {
      await this.qmp.command('migrate-incoming', { uri: `exec:cat ${shellQuoted(path)}` });
      await this.migrated();
    });
  }

  /** Waits until the migration that QEMU has begun, in either direction, is complete. */
  async migrated(): Promise<void> {
    await poll('the migration of the guest', MIGRATION_TIMEOUT_MS, async () => {
      this.#qemu.check();
      const { status, 'error-desc': reason } = await this.qmp.query('query-migrate');
      if (status === 'failed') throw new Error(`QEMU could not migrate the guest: ${String(reason)}`);
      return status === 'completed' ? true : undefined;
    });
  }

  /** Waits for the end of QEMU, whoever brings it about. */
  async ended(): Promise<void> {
    await this.#qemu.exited();
  }

  /** Ends QEMU the polite way. */
  async quit(): Promise<void> {
    await this.qmp.command('quit');
    this.qmp.close();
    await this.#qemu.exited();
  }

  /** Ends QEMU at once if it still runs; never fails. */
  async dispose(): Promise<void> {
    this.qmp.close();
    await this.#qemu.kill();
  }

  /** With x-ignore-shared QEMU's stream carries no memory that a file holds. Left on, it would spoil the next migration. */
  async #withoutSharedMemory(act: () => Promise<void>): Promise<void> {
    const set = async (state: boolean): Promise<void> => {
      await this.qmp.command('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state }] });
    };
    await set(true);
    await act();
    await set(false);
  }
}

/** The child process, its exit, and its log. */
class QemuProcess {
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  readonly #serialPath: string;
  #stderr = '';

  constructor(args: readonly string[], serialPath: string) {
    this.#serialPath = serialPath;
    // Test workers are ended without a chance to clean up when they take too long: the kernel then ends QEMU for us.
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'qemu-system-x86_64', ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.#closed = once(this.#child, 'close').catch((error: unknown) => {
      this.#stderr += String(error);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Fails with what QEMU and the guest said last if QEMU is gone. */
  check(): void {
    const { exitCode, signalCode, pid } = this.#child;
    if (pid !== undefined && exitCode === null && signalCode === null) return;
    throw new Error(`qemu-system-x86_64 ended with ${String(signalCode ?? exitCode)}: ${this.#stderr.trim()}`);
  }

  async serialText(): Promise<string> {
    return readFile(this.#serialPath, 'latin1').catch(() => '');
  }

  async exited(): Promise<void> {
    await within('the end of qemu-system-x86_64', QUIT_TIMEOUT_MS, this.#closed);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }
}

function qemuArguments({
  image,
  memory,
  folder,
  name,
  fillMiB = 0,
  staleMiB = 0,
  churnMiB = 0,
  anonymous = false,
  incoming = false,
  devices = [],
}: GuestOptions): string[] {
  const { qmp, programQmp, serial } = paths({ folder, name });
  const backends = memory.flatMap(({ path, bytes }, node) => [
    ...[
      '-object',
      `${anonymous ? 'memory-backend-ram' : `memory-backend-file,mem-path=${path},share=on`},id=ram${node},size=${bytes}`,
    ],
    ...['-numa', `node,nodeid=${node},memdev=ram${node}`],
  ]);
  const sizes = `${FILL_VARIABLE}=${fillMiB} ${STALE_VARIABLE}=${staleMiB} ${CHURN_VARIABLE}=${churnMiB}`;
  return [
    // Never KVM: where /dev/kvm exists it may still hang the guest, and tests should see the same everywhere.
    ...['-machine', 'q35,accel=tcg', '-cpu', 'max'],
    ...['-m', `size=${totalBytes(memory)}B`, ...backends],
    ...['-nodefaults', '-no-reboot', '-display', 'none', '-device', 'virtio-balloon-pci,id=balloon0'],
    ...['-serial', `file:${serial}`],
    ...['-qmp', `unix:${qmp},server=on,wait=off`, '-qmp', `unix:${programQmp},server=on,wait=off`],
    ...['-kernel', image.kernel, '-initrd', image.initramfs],
    // A kernel that panics ends QEMU, so that a test fails at once and not after its time limit.
    // Linux checks its timer against a loop that it counts, which fails (a panic, or a boot of a minute) where QEMU waits
    // for a processor meanwhile.
    ...['-append', `console=ttyS0 quiet panic=-1 no_timer_check ${sizes}`],
    ...devices,
    ...(incoming ? ['-incoming', 'defer'] : []),
  ];
}

function paths({
  folder,
  name,
}: Pick<GuestOptions, 'folder' | 'name'>): Record<'qmp' | 'programQmp' | 'serial', string> {
  const path = (suffix: string): string => join(folder, `${name}.${suffix}`);
  return { qmp: path('qmp'), programQmp: path('program.qmp'), serial: path('serial') };
}

function totalBytes(memory: readonly GuestMemory[]): number {
  return memory.reduce((sum, { bytes }) => sum + bytes, 0);
}

function shellQuoted(path: string): string {
  return `'${path.replaceAll("'", "'\\''")}'`;
}
