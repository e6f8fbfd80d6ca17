import type { AnnounceCounts } from './announcer.js';
import type { WalkCounts } from './leaf-sender.js';

const Gauge = {
  scannedBytes: 0,
  sentBytes: 1,
  whiteouts: 2,
  mapBytes: 3,
  wireBytes: 4,
  tableBytes: 5,
  storedBytes: 6,
} as const;
const GAUGES = Object.keys(Gauge).length;

/**
 * What a pass over memory, or one channel's part of it, has done so far, in memory that its thread may share with the
 * session's: one writes, the other reads, and neither waits for the other. Bytes, where the name does not say
 * otherwise. Why they are floating-point numbers: see `ByteCount`.
 */
export class PassGauges implements WalkCounts, AnnounceCounts {
  readonly memory: SharedArrayBuffer;
  readonly #values: Float64Array;

  constructor(memory = new SharedArrayBuffer(GAUGES * Float64Array.BYTES_PER_ELEMENT)) {
    this.memory = memory;
    this.#values = new Float64Array(memory);
  }

  get scannedBytes(): number {
    return this.#values[Gauge.scannedBytes] ?? 0;
  }
  set scannedBytes(value: number) {
    this.#values[Gauge.scannedBytes] = value;
  }

  get sentBytes(): number {
    return this.#values[Gauge.sentBytes] ?? 0;
  }
  set sentBytes(value: number) {
    this.#values[Gauge.sentBytes] = value;
  }

  get storedBytes(): number {
    return this.#values[Gauge.storedBytes] ?? 0;
  }
  set storedBytes(value: number) {
    this.#values[Gauge.storedBytes] = value;
  }

  /** Pages. */
  get whiteouts(): number {
    return this.#values[Gauge.whiteouts] ?? 0;
  }
  set whiteouts(value: number) {
    this.#values[Gauge.whiteouts] = value;
  }

  get mapBytes(): number {
    return this.#values[Gauge.mapBytes] ?? 0;
  }
  set mapBytes(value: number) {
    this.#values[Gauge.mapBytes] = value;
  }

  get tableBytes(): number {
    return this.#values[Gauge.tableBytes] ?? 0;
  }
  set tableBytes(value: number) {
    this.#values[Gauge.tableBytes] = value;
  }

  /** Both directions. */
  get wireBytes(): number {
    return this.#values[Gauge.wireBytes] ?? 0;
  }
  set wireBytes(value: number) {
    this.#values[Gauge.wireBytes] = value;
  }
}
