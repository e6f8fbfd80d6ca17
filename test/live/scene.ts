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

/** A guest that runs, a QEMU that waits for it, and the two programs between them, as on two hosts. */
export class Scene {
  readonly source: Guest;
  readonly destination: Guest;
  readonly folder: string;
  readonly sourceMemory: readonly GuestMemory[];
  readonly destinationMemory: readonly GuestMemory[];
  readonly #t: ExecutionContext;

  private constructor(
    t: ExecutionContext,
    folder: string,
    [source, sourceMemory]: [Guest, readonly GuestMemory[]],
    [destination, destinationMemory]: [Guest, readonly GuestMemory[]],
  ) {
    this.#t = t;
    this.folder = folder;
    this.source = source;
    this.sourceMemory = sourceMemory;
    this.destination = destination;
    this.destinationMemory = destinationMemory;
  }

  /** Starts both QEMUs, and waits until the guest counts. */
  static async start(t: ExecutionContext, image: GuestImage, options: SceneOptions = {}): Promise<Scene> {
    const { memoryMiB = 256, nodes = 1, fillMiB = 32, balloonMiB = 0 } = options;
    const memoryFolder = await roomyFolder(2 * memoryMiB * MIB);
    t.teardown(async () => rm(memoryFolder, { recursive: true, force: true }));
    const folder = await mkdtemp(join(tmpdir(), 'ballast-live-'));
    t.teardown(async () => rm(folder, { recursive: true, force: true }));
    const memoryOf = (name: string): GuestMemory[] =>
      Array.from({ length: nodes }, (_, node) => ({
        path: join(memoryFolder, `${name}-${node}.mem`),
        bytes: (memoryMiB * MIB) / nodes,
      }));
    const [source, destination] = [memoryOf('source'), memoryOf('destination')];
    const shape = { ...options, image, folder, fillMiB };
    const guest = await Guest.start({ ...shape, memory: source, name: 'source' });
    t.teardown(async () => guest.dispose());
    await guest.waitForTicks(3);
    if (balloonMiB > 0) await guest.inflateBalloon(balloonMiB * MIB);
    const waiting = await Guest.start({ ...shape, memory: destination, name: 'destination', incoming: true });
    t.teardown(async () => waiting.dispose());
    return new Scene(t, folder, [guest, source], [waiting, destination]);
  }

  /** Starts the receiver, beside the waiting QEMU. */
  async receive(...args: readonly string[]): Promise<{ receiver: Program; port: number }> {
    const receiver = new Program(RECEIVER, [
      ...['--qmp', this.destination.programQmpPath, '--listen', '127.0.0.1:0', '--json'],
      ...args,
    ]);
    this.#t.teardown(async () => receiver.dispose());
    const { port } = await receiver.event('listening', 20_000);
    return { receiver, port: Number(port) };
  }

  /** Starts the sender, beside the guest. */
  send(port: number, ...args: readonly string[]): Program {
    return this.ballastSend('--qmp', this.source.programQmpPath, '--to', `127.0.0.1:${port}`, ...args);
  }

  /** Runs ballast-send with records of its own. */
  ballastSend(...args: readonly string[]): Program {
    const sender = new Program(SENDER, [...args, '--json'], { XDG_RUNTIME_DIR: this.folder });
    this.#t.teardown(async () => sender.dispose());
    return sender;
  }

  /** Moves the guest, and gives what both programs reported. */
  async move(...args: readonly string[]): Promise<Record<'sent' | 'received', Readonly<Record<string, unknown>>>> {
    const { receiver, port } = await this.receive();
    const sender = this.send(port, ...args);
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
  async assertRunsThere(): Promise<void> {
    const before = (await this.log()).ticks.length;
    await this.destination.waitForTicks(8);
    await this.#assertSound(before + 5);
  }

  /** The guest counts on here, and never ran there. */
  async assertRunsHere(): Promise<void> {
    const before = (await this.log()).ticks.length;
    this.#t.is(await this.source.status(), 'running');
    await this.source.waitForTicks(before + 8);
    this.#t.is(parseSerial(await this.destination.serialText()).ticks.length, 0, 'the guest ran in two places');
    await this.#assertSound(before + 5);
  }

  async #assertSound(leastTicks: number): Promise<void> {
    const { ticks, badSums } = await this.log();
    this.#t.deepEqual(badSums, [], 'memory is not what it was');
    this.#t.deepEqual(
      ticks,
      ticks.map((_, index) => index + 1),
      'a tick is missing, repeated or damaged',
    );
    this.#t.true(ticks.length >= leastTicks, `only ${ticks.length} ticks, expected ${leastTicks}`);
  }

  /** Nothing that ballast-send sets is left set. */
  async assertNothingLeftSet(): Promise<void> {
    const on = (await capabilities(this.source)).filter(({ state }) => state).map(({ capability }) => capability);
    this.#t.deepEqual(on, [], 'migration capabilities are left on');
    const parameters = await this.source.qmp.query('query-migrate-parameters');
    this.#t.is(parameters['max-bandwidth'], 128 * MIB, 'max-bandwidth was not put back');
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
