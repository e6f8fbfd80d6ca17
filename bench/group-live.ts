import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { guestImage, type GuestImage } from '#test/qemu/guest-image.js';
import { Guest } from '#test/qemu/guest.js';
import { parseSerial } from '#test/qemu/serial-log.js';
import { moveLive } from './ballast.js';
import type { Contender, Measurement } from './contender.js';
import { formatBytes } from './format.js';
import { type Bench, GIB, type GroupPlan, MIB } from './group.js';

/** The guest of the mail of 2016, alive: 16 GiB, idle, 12 GiB ballooned out. */
const GUEST = { memory: 16 * GIB, balloon: 12 * GIB };
/** A guest that has written to a GiB and does nothing more, for the downtime. */
const RESIDENT = { memory: 2 * GIB, used: 900 * MIB };

/** Memory by which every guest checks itself. */
const CHECKED_MIB = 32;
/** An emulated guest gives a GiB in some seconds. */
const BALLOON_TIMEOUT_MS = 300_000;

/** The row that the others are measured against. */
export const QEMU = 'QEMU’s own migration';

/** A running guest, moved by Ballast and by QEMU itself. Each has a guest that it moves on and on. */
export const livePlan: GroupPlan = {
  name: 'live',
  roomBytes: 3 * GIB,
  async measure(bench) {
    const image = await guestImage();
    const memoryBytes = GUEST.memory / bench.shrink;
    const balloonBytes = GUEST.balloon / bench.shrink;
    const staleMiB = Math.floor(RESIDENT.used / bench.shrink / MIB / 4) * 4;
    const ballooned: Wanderer = { image, memoryBytes, balloonBytes };
    const resident: Wanderer = { image, memoryBytes: RESIDENT.memory / bench.shrink, balloonBytes: 0, staleMiB };
    const scenes = [
      new Journey('qemu', { ...ballooned, anonymous: true }, bench),
      new Journey('ballast', ballooned, bench),
      new Journey('resident', resident, bench),
    ] as const;
    const [qemu, ballast, full] = scenes;
    try {
      const rows = await bench.interleave([
        qemu.contender(QEMU, 'migrate tcp:127.0.0.1:PORT, max-bandwidth lifted, anonymous memory'),
        ballast.contender('ballast', `${RECEIVE}; ${SEND}`),
        full.contender(`ballast, ${formatBytes(staleMiB * MIB)} resident`, `${RECEIVE}; ${SEND}`),
      ]);
      return {
        title: 'A running guest',
        about:
          `A guest of ${formatBytes(memoryBytes)}, idle, of which the balloon took ${formatBytes(balloonBytes)}, moved to ` +
          'another QEMU over one loopback, while it runs (TCG); and an idle one that has written to ' +
          `${formatBytes(staleMiB * MIB)}. The guests that wait for their turn are paused. Downtime is what each says ` +
          'itself: QEMU measures its source alone.',
        dataBytes: balloonBytes,
        rows,
      };
    } finally {
      for (const scene of scenes) await scene.end();
    }
  },
};

const RECEIVE = 'ballast-receive --qmp DST.qmp --listen 127.0.0.1:0';
const SEND = 'ballast-send --qmp SRC.qmp --to 127.0.0.1:PORT';

interface Wanderer {
  readonly image: GuestImage;
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly staleMiB?: number;
  readonly anonymous?: boolean;
}

/** A guest that goes from QEMU to QEMU. */
class Journey {
  readonly #name: string;
  readonly #guest: Wanderer;
  readonly #bench: Bench;
  #folder = '';
  #legs = 0;
  #here: { readonly qemu: Guest; readonly path: string } | undefined;
  #there: { readonly qemu: Guest; readonly path: string } | undefined;

  constructor(name: string, guest: Wanderer, bench: Bench) {
    this.#name = name;
    this.#guest = guest;
    this.#bench = bench;
  }

  contender(name: string, what: string): Contender {
    return {
      name,
      what,
      prepare: async () => {
        await this.#begin();
        this.#there = await this.#start(true);
      },
      run: async () => {
        const [here, there] = [this.#here, this.#there];
        if (here === undefined || there === undefined) throw new Error('nothing was prepared');
        const before = this.#allocated(here);
        const measured = this.#guest.anonymous === true ? await migrate(here.qemu, there.qemu) : await this.#move();
        return {
          ...measured,
          counters: {
            ...measured.counters,
            before,
            sourceAfter: this.#allocated(here),
            destinationAfter: this.#allocated(there),
          },
        };
      },
      verify: async () => {
        await this.#there?.qemu.waitForTicks(12);
        const { ticks, badSums } = parseSerial((await this.#there?.qemu.serialText()) ?? '');
        if (badSums.length > 0) throw new Error('the memory of the guest is not what it was');
        if (ticks.slice(1).some((tick, index) => tick - (ticks[index] ?? 0) !== 1))
          throw new Error('a tick is missing');
      },
      cleanUp: async () => {
        await this.#leave(this.#here);
        this.#here = this.#there;
        this.#there = undefined;
        // An emulated guest takes a processor's time even when it has nothing to do.
        await this.#here?.qemu.pause();
      },
    };
  }

  async end(): Promise<void> {
    await this.#leave(this.#here);
    await this.#leave(this.#there);
    if (this.#folder !== '') await rm(this.#folder, { recursive: true, force: true });
  }

  async #begin(): Promise<void> {
    if (this.#here !== undefined) {
      await this.#here.qemu.cont();
      return;
    }
    this.#folder = await mkdtemp(join(tmpdir(), 'ballast-bench-'));
    this.#here = await this.#start(false);
    const { qemu } = this.#here;
    await qemu.waitForTicks(3);
    if (this.#guest.balloonBytes > 0) await qemu.inflateBalloon(this.#guest.balloonBytes, BALLOON_TIMEOUT_MS);
  }

  async #start(incoming: boolean): Promise<{ qemu: Guest; path: string }> {
    const { image, memoryBytes: bytes, staleMiB = 0, anonymous = false } = this.#guest;
    const name = `${this.#name}${++this.#legs}`;
    const path = this.#bench.folder.file(`${name}.mem`);
    const memory = [{ path, bytes }];
    const shape = { image, staleMiB, fillMiB: CHECKED_MIB };
    return {
      qemu: await Guest.start({ ...shape, memory, folder: this.#folder, name, anonymous, incoming }),
      path,
    };
  }

  async #leave(place: { readonly qemu: Guest; readonly path: string } | undefined): Promise<void> {
    await place?.qemu.dispose();
    if (place !== undefined) await rm(place.path, { force: true });
  }

  async #move(): Promise<Measurement> {
    const [here, there] = [this.#here?.qemu.programQmpPath ?? '', this.#there?.qemu.programQmpPath ?? ''];
    const { seconds, counters } = await moveLive(here, there, this.#bench.programs);
    return { seconds, wireBytes: counters['wireBytes'], counters };
  }

  #allocated({ qemu, path }: { readonly qemu: Guest; readonly path: string }): number {
    if (this.#guest.anonymous !== true) return statSync(path).blocks * 512;
    return residentOf(Number(qemu.pid), this.#guest.memoryBytes);
  }
}

/** What is resident of the one mapping of this size. */
function residentOf(pid: number, bytes: number): number {
  const [, after = ''] = readFileSync(`/proc/${pid}/smaps`, 'latin1').split(
    new RegExp(`^Size: +${bytes / 1024} kB$`, 'm'),
  );
  return Number(/^Rss: +(\d+) kB$/m.exec(after)?.[1] ?? NaN) * 1024;
}

/** QEMU by itself, as fast as it can. */
async function migrate(source: Guest, destination: Guest): Promise<Measurement> {
  await source.qmp.command('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  await destination.qmp.command('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const [address] = (await destination.qmp.query('query-migrate'))['socket-address'] as { port: string }[];
  const began = performance.now();
  await source.qmp.command('migrate', { uri: `tcp:127.0.0.1:${address?.port ?? ''}` });
  for (;;) {
    const { status, ram, downtime } = await source.qmp.query('query-migrate');
    if (status === 'failed') throw new Error('QEMU’s own migration failed');
    const seconds = (performance.now() - began) / 1000;
    if (status === 'completed') {
      const wireBytes = (ram as { transferred: number }).transferred;
      return { seconds, wireBytes, counters: { downtimeMs: Number(downtime) } };
    }
    await sleep(5);
  }
}
