import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestImage } from '#test/qemu/guest-image.js';
import { Guest } from '#test/qemu/guest.js';
import { parseSerial } from '#test/qemu/serial-log.js';
import type { PrivateFolder } from './folder.js';

export interface WanderingGuestOptions {
  /** Unique among those that share a folder. */
  readonly name: string;
  readonly image: GuestImage;
  readonly memoryBytes: number;
  /** Bytes that its balloon takes before it sets out. */
  readonly balloonBytes?: number;
  readonly fillMiB: number;
  readonly staleMiB?: number;
  readonly churnMiB?: number;
  /** Memory of QEMU's own. */
  readonly anonymous?: boolean;
}

/** A QEMU that the guest is in, or comes to, and its memory file. */
export interface Place {
  readonly qemu: Guest;
  readonly path: string;
}

/** An emulated guest gives a GiB in some seconds. */
const BALLOON_TIMEOUT_MS = 300_000;
/** Ticks after which every part of its memory was checked at least once, and more. */
const TICKS_OF_A_CHECK = 25;

/** A guest that goes from QEMU to QEMU, counts on the way, and checks its memory. Whoever begins its way ends it. */
export class WanderingGuest {
  readonly #options: WanderingGuestOptions;
  readonly #files: PrivateFolder;
  /** Where the sockets are: their paths may have 107 bytes. */
  #sockets = '';
  #legs = 0;
  /** What it said in the QEMUs that it has left. */
  #said = '';
  #here: Place | undefined;
  #there: Place | undefined;

  constructor(options: WanderingGuestOptions, files: PrivateFolder) {
    this.#options = options;
    this.#files = files;
  }

  get here(): Place {
    if (this.#here === undefined) throw new Error('the guest is nowhere yet');
    return this.#here;
  }

  /** The QEMU that waits for it. */
  get there(): Place {
    if (this.#there === undefined) throw new Error('no QEMU waits for the guest');
    return this.#there;
  }

  /** Starts the guest, or lets it run again, and a QEMU that waits for it. */
  async getReady(): Promise<void> {
    if (this.#here === undefined) {
      this.#sockets = await mkdtemp(join(tmpdir(), 'ballast-bench-'));
      this.#here = await this.#start(false);
      const { qemu } = this.#here;
      await qemu.waitForTicks(3);
      const { balloonBytes = 0 } = this.#options;
      if (balloonBytes > 0) await qemu.inflateBalloon(balloonBytes, BALLOON_TIMEOUT_MS);
    } else if ((await this.#here.qemu.status()) === 'paused') await this.#here.qemu.cont();
    this.#there = await this.#start(true);
  }

  /** @throws when the guest has not counted on there, or its memory is not what it was */
  async verifyArrived(): Promise<void> {
    const { length } = parseSerial(await this.there.qemu.serialText()).ticks;
    await this.there.qemu.waitForTicks(length + TICKS_OF_A_CHECK);
    const { ticks, badSums } = parseSerial(
      this.#said + (await this.here.qemu.serialText()) + (await this.there.qemu.serialText()),
    );
    if (badSums.length > 0) throw new Error('the memory of the guest is not what it was');
    const wrong = ticks.findIndex((tick, index) => tick !== index + 1);
    if (wrong !== -1) throw new Error(`tick ${String(ticks[wrong])} came where ${wrong + 1} was to come`);
  }

  /** Ends the QEMU that it has left. */
  async settle(): Promise<void> {
    this.#said += await this.here.qemu.serialText();
    await this.#leave(this.#here);
    this.#here = this.#there;
    this.#there = undefined;
  }

  async end(): Promise<void> {
    await this.#leave(this.#here);
    await this.#leave(this.#there);
    if (this.#sockets !== '') await rm(this.#sockets, { recursive: true, force: true });
  }

  async #start(incoming: boolean): Promise<Place> {
    const { memoryBytes: bytes, ...options } = this.#options;
    const name = `${this.#options.name}${++this.#legs}`;
    const path = this.#files.file(`${name}.mem`);
    const folder = this.#sockets;
    return { qemu: await Guest.start({ ...options, name, folder, memory: [{ path, bytes }], incoming }), path };
  }

  async #leave(place: Place | undefined): Promise<void> {
    await place?.qemu.dispose();
    if (place !== undefined) await rm(place.path, { force: true });
  }
}
