import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Program, RECEIVER, SENDER } from '../qemu/ballast-programs.js';
import type { GuestImage } from '../qemu/guest-image.js';
import { Guest, type GuestMemory } from '../qemu/guest.js';
import { roomyFolder } from '../qemu/roomy-folder.js';
import { parseSerial, type SerialLog } from '../qemu/serial-log.js';

const MIB = 2 ** 20;

export interface SceneOptions {
  readonly memoryMiB?: number;
  readonly nodes?: number;
  readonly fillMiB?: number;
  readonly staleMiB?: number;
  readonly churnMiB?: number;
  readonly balloonMiB?: number;
  /** Arguments for both QEMUs. */
  readonly devices?: readonly string[];
}

export interface ReceiveOptions {
  /** The monitor, where it is not the waiting QEMU's own. */
  readonly qmp?: string;
  readonly args?: readonly string[];
}

interface GuestShape extends SceneOptions {
  readonly image: GuestImage;
  readonly folder: string;
  readonly fillMiB: number;
  /** Memory files by the name of a QEMU. */
  readonly memoryOf: (name: string) => GuestMemory[];
}

/** A guest that runs, a QEMU that waits for it, and the two programs between them, as on two hosts. */
export class Scene {
  readonly source: Guest;
  readonly folder: string;
  readonly sourceMemory: readonly GuestMemory[];
  readonly #shape: GuestShape;
  readonly #ends: (() => Promise<unknown>)[];
  #waiting: { readonly guest: Guest; readonly memory: readonly GuestMemory[] } | undefined;
  #waitings = 0;

  private constructor(
    shape: GuestShape,
    source: { readonly guest: Guest; readonly memory: readonly GuestMemory[] },
    ends: (() => Promise<unknown>)[],
  ) {
    this.#shape = shape;
    this.folder = shape.folder;
    this.source = source.guest;
    this.sourceMemory = source.memory;
    this.#ends = ends;
  }

  /** Starts both QEMUs, and waits until the guest counts. */
  static async start(t: ExecutionContext, image: GuestImage, options: SceneOptions = {}): Promise<Scene> {
    const scene = await Scene.open(image, options);
    t.teardown(async () => scene.close());
    await scene.startWaiting();
    return scene;
  }

  /** Starts the guest only. Whoever opens a scene closes it. */
  static async open(image: GuestImage, options: SceneOptions = {}): Promise<Scene> {
    const { memoryMiB = 256, nodes = 1, fillMiB = 32, balloonMiB = 0 } = options;
    const ends: (() => Promise<unknown>)[] = [];
    try {
      const memoryFolder = await roomyFolder(2 * memoryMiB * MIB);
      ends.unshift(async () => rm(memoryFolder, { recursive: true, force: true }));
      const folder = await mkdtemp(join(tmpdir(), 'ballast-live-'));
      ends.unshift(async () => rm(folder, { recursive: true, force: true }));
      const memoryOf = (name: string): GuestMemory[] =>
        Array.from({ length: nodes }, (_, node) => ({
          path: join(memoryFolder, `${name}-${node}.mem`),
          bytes: (memoryMiB * MIB) / nodes,
        }));
      const shape = { ...options, image, folder, fillMiB, memoryOf };
      const memory = memoryOf('source');
      const guest = await Guest.start({ ...shape, memory, name: 'source' });
      ends.unshift(async () => guest.dispose());
      await guest.waitForTicks(3);
      if (balloonMiB > 0) await guest.inflateBalloon(balloonMiB * MIB);
      return new Scene(shape, { guest, memory }, ends);
    } catch (error) {
      for (const end of ends) await end();
      throw error;
    }
  }

  /** The QEMU that waits, or that the guest has come to. */
  get destination(): Guest {
    if (this.#waiting === undefined) throw new Error('no QEMU waits');
    return this.#waiting.guest;
  }

  get destinationMemory(): readonly GuestMemory[] {
    return this.#waiting?.memory ?? [];
  }

  /** Starts a QEMU that waits for the guest, in place of the one before, which may be gone. */
  async startWaiting(): Promise<void> {
    await this.#waiting?.guest.dispose();
    for (const { path } of this.destinationMemory) await rm(path, { force: true });
    const name = `destination${++this.#waitings}`;
    const memory = this.#shape.memoryOf(name);
    const guest = await Guest.start({ ...this.#shape, memory, name, incoming: true });
    this.#ends.unshift(async () => guest.dispose());
    this.#waiting = { guest, memory };
  }

  /** Starts one more QEMU that waits, beside the other. */
  async startOther(): Promise<Guest> {
    const name = `other${++this.#waitings}`;
    const guest = await Guest.start({ ...this.#shape, memory: this.#shape.memoryOf(name), name, incoming: true });
    this.#ends.unshift(async () => guest.dispose());
    return guest;
  }

  async close(): Promise<void> {
    for (const end of this.#ends) await end();
  }

  /** Starts the receiver, beside the waiting QEMU. */
  async receive({ qmp = this.destination.programQmpPath, args = [] }: ReceiveOptions = {}): Promise<{
    receiver: Program;
    port: number;
  }> {
    const receiver = new Program(RECEIVER, ['--qmp', qmp, '--listen', '127.0.0.1:0', '--json', ...args]);
    this.#ends.unshift(async () => receiver.dispose());
    const { port } = await receiver.event('listening', 20_000);
    return { receiver, port: Number(port) };
  }

  /** Starts the sender, beside the guest. */
  send(to: string, { qmp = this.source.programQmpPath, args = [] }: ReceiveOptions = {}): Program {
    return this.ballastSend('--qmp', qmp, '--to', to, ...args);
  }

  /** Runs ballast-send with records of its own. */
  ballastSend(...args: readonly string[]): Program {
    const sender = new Program(SENDER, [...args, '--json'], { XDG_RUNTIME_DIR: this.folder });
    this.#ends.unshift(async () => sender.dispose());
    return sender;
  }

  /** Moves the guest, and gives what both programs reported. */
  async move(...args: readonly string[]): Promise<Record<'sent' | 'received', Readonly<Record<string, unknown>>>> {
    const { receiver, port } = await this.receive();
    const sender = this.send(`127.0.0.1:${port}`, { args });
    const sent = await sender.event('done', 90_000);
    const received = await receiver.event('done', 30_000);
    await Promise.all([sender.succeeded(), receiver.succeeded()]);
    return { sent, received };
  }

  /** What the guest has said here and, after that, there. */
  async log(): Promise<SerialLog> {
    return parseSerial((await this.source.serialText()) + (await this.destination.serialText()));
  }

  /** The guest counts on there, without a tick missing or repeated, and its memory is what it was. */
  async assertRunsThere(t: ExecutionContext): Promise<void> {
    const before = (await this.log()).ticks.length;
    await this.destination.waitForTicks(parseSerial(await this.destination.serialText()).ticks.length + 8);
    t.false((await this.source.status().catch(() => 'gone')) === 'running', 'the guest runs in two places');
    await this.#assertSound(t, before + 5);
  }

  /** The guest counts on here, and never ran there. */
  async assertRunsHere(t: ExecutionContext): Promise<void> {
    const before = (await this.log()).ticks.length;
    t.is(await this.source.status(), 'running');
    await this.source.waitForTicks(before + 8);
    t.is(parseSerial(await this.destination.serialText()).ticks.length, 0, 'the guest ran in two places');
    await this.#assertSound(t, before + 5);
    await this.assertNothingLeftSet(t);
  }

  async #assertSound(t: ExecutionContext, leastTicks: number): Promise<void> {
    const { ticks, badSums } = await this.log();
    t.deepEqual(badSums, [], 'memory is not what it was');
    t.deepEqual(
      ticks,
      ticks.map((_, index) => index + 1),
      'a tick is missing, repeated or damaged',
    );
    t.true(ticks.length >= leastTicks, `only ${ticks.length} ticks, expected ${leastTicks}`);
  }

  /** Nothing that ballast-send sets is left set. */
  async assertNothingLeftSet(t: ExecutionContext): Promise<void> {
    const on = (await capabilities(this.source)).filter(({ state }) => state).map(({ capability }) => capability);
    t.deepEqual(on, [], 'migration capabilities are left on');
    const parameters = await this.source.qmp.query('query-migrate-parameters');
    t.is(parameters['max-bandwidth'], 128 * MIB, 'max-bandwidth was not put back');
  }
}

async function capabilities(guest: Guest): Promise<{ capability: string; state: boolean }[]> {
  return (await guest.qmp.command('query-migrate-capabilities')) as { capability: string; state: boolean }[];
}

/** Bytes that the filesystem has allocated for files. */
export async function allocatedBytes(memory: readonly GuestMemory[]): Promise<number> {
  const stats = await Promise.all(memory.map(async ({ path }) => stat(path)));
  return stats.reduce((sum, { blocks }) => sum + blocks * 512, 0);
}
