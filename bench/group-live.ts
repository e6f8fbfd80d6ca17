import { readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { guestImage } from '#test/qemu/guest-image.js';
import type { Guest } from '#test/qemu/guest.js';
import { moveLive, type Programs } from './ballast.js';
import type { Contender, Measurement } from './contender.js';
import { formatBytes } from './format.js';
import { type Bench, GIB, type GroupPlan, MIB } from './group.js';
import { type Place, WanderingGuest, type WanderingGuestOptions } from './wandering-guest.js';

/** The guest of the mail of 2016, alive: 16 GiB, idle, 12 GiB ballooned out. */
const GUEST = { memory: 16 * GIB, balloon: 12 * GIB };
/** A guest that has written to a GiB and does nothing more, for the downtime. */
const RESIDENT = { memory: 2 * GIB, used: 900 * MIB };

/** Memory by which every guest checks itself. */
const CHECKED_MIB = 32;
/** The row that the others are measured against. */
export const QEMU = 'QEMU’s own migration';
/** Connections of QEMU's own migration by several of them. */
const MULTIFD_CHANNELS = 4;

/** A running guest, moved by Ballast and by QEMU itself. Each has a guest that it moves on and on. */
export const livePlan: GroupPlan = {
  name: 'live',
  roomBytes: 6 * GIB,
  async measure(bench) {
    const image = await guestImage();
    const memoryBytes = GUEST.memory / bench.shrink;
    const balloonBytes = GUEST.balloon / bench.shrink;
    const staleMiB = Math.floor(RESIDENT.used / bench.shrink / MIB / 4) * 4;
    const ballooned = { image, memoryBytes, balloonBytes, fillMiB: CHECKED_MIB };
    const resident = { image, memoryBytes: RESIDENT.memory / bench.shrink, staleMiB, fillMiB: CHECKED_MIB };
    const used = formatBytes(staleMiB * MIB);
    const journeys = [
      new Journey({ name: 'qemu', ...ballooned, anonymous: true }, bench, QEMU),
      new Journey(
        { name: 'multifd', ...ballooned, anonymous: true },
        bench,
        `QEMU, multifd of ${MULTIFD_CHANNELS}`,
        MULTIFD_CHANNELS,
      ),
      new Journey({ name: 'ballast', ...ballooned }, bench, 'ballast'),
      new Journey({ name: 'full-qemu', ...resident, anonymous: true }, bench, `QEMU, ${used} resident`),
      new Journey({ name: 'full', ...resident }, bench, `ballast, ${used} resident`),
    ];
    try {
      const rows = await bench.interleave(journeys.map((journey) => journey.contender()));
      return {
        title: 'A running guest',
        about:
          `A guest of ${formatBytes(memoryBytes)}, idle, of which the balloon took ${formatBytes(balloonBytes)}, moved to ` +
          'another QEMU over one loopback, while it runs (TCG); and an idle one that has written to ' +
          `${used}. The guests that wait for their turn are paused. Downtime is what each says ` +
          'itself: QEMU measures its source alone.',
        dataBytes: balloonBytes,
        rows,
      };
    } finally {
      for (const journey of journeys) await journey.end();
    }
  },
};

const RECEIVE = 'ballast-receive --qmp DST.qmp --listen 127.0.0.1:0';
const SEND = 'ballast-send --qmp SRC.qmp --to 127.0.0.1:PORT';
const MIGRATE = 'migrate tcp:127.0.0.1:PORT, max-bandwidth lifted, anonymous memory';

/** A guest that is moved on and on, as one of those that are compared. */
class Journey {
  readonly #shape: WanderingGuestOptions;
  readonly #guest: WanderingGuest;
  readonly #programs: Programs;
  readonly #name: string;
  readonly #multifdChannels: number | undefined;

  /**
   * @param shape a guest whose memory is anonymous is moved by QEMU itself
   * @param multifdChannels connections of QEMU's own; one without multifd by default
   */
  constructor(shape: WanderingGuestOptions, bench: Bench, name: string, multifdChannels?: number) {
    this.#shape = shape;
    this.#name = name;
    this.#multifdChannels = multifdChannels;
    this.#guest = new WanderingGuest(shape, bench.folder);
    this.#programs = bench.programs;
  }

  contender(): Contender {
    return {
      name: this.#name,
      what: this.#what,
      prepare: async () => this.#guest.getReady(),
      run: async () => {
        const { here, there } = this.#guest;
        const before = this.#allocated(here);
        const measured = await (this.#shape.anonymous === true
          ? migrate(here.qemu, there.qemu, this.#multifdChannels)
          : this.#move());
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
      verify: async () => this.#guest.verifyArrived(),
      cleanUp: async () => {
        await this.#guest.settle();
        // An emulated guest takes a processor's time even when it has nothing to do.
        await this.#guest.here.qemu.pause();
      },
    };
  }

  async end(): Promise<void> {
    await this.#guest.end();
  }

  get #what(): string {
    if (this.#shape.anonymous !== true) return `${RECEIVE}; ${SEND}`;
    return this.#multifdChannels === undefined ? MIGRATE : `${MIGRATE}, multifd-channels ${this.#multifdChannels}`;
  }

  async #move(): Promise<Measurement> {
    const [here, there] = [this.#guest.here.qemu.programQmpPath, this.#guest.there.qemu.programQmpPath];
    const { seconds, counters } = await moveLive(here, there, this.#programs);
    return { seconds, wireBytes: counters['wireBytes'], counters };
  }

  #allocated({ qemu, path }: Place): number {
    if (this.#shape.anonymous !== true) return statSync(path).blocks * 512;
    return residentOf(Number(qemu.pid), this.#shape.memoryBytes);
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
async function migrate(source: Guest, destination: Guest, multifdChannels?: number): Promise<Measurement> {
  if (multifdChannels !== undefined) {
    for (const { qmp } of [source, destination]) {
      await qmp.command('migrate-set-capabilities', { capabilities: [{ capability: 'multifd', state: true }] });
      await qmp.command('migrate-set-parameters', { 'multifd-channels': multifdChannels });
    }
  }
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
