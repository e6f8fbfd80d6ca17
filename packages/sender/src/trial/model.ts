import { Dialect, HEADER_SIZE, LEAF_RECORD_SIZE, MAX_BATCH_BYTES, MAX_WHITEOUTS } from '@ballast/shared/protocol';
import { Identify, STRATEGIES, type StrategyName } from '../strategy.js';
import type { MemoryProfile, ProfileKind, ProfileRates } from './memory-profile.js';
import { wireBytes, type WireBytes } from './wire-bytes.js';

/**
 * The back of the envelope of the mail, with a queue added. Three things happen at once, and each page costs each of
 * them something:
 *
 *      sender                      link                      receiver
 *      read, scan, hash, send --> bytes / bandwidth --> receive, hash
 *
 * What is not sent costs the link a whiteout, three decimal orders less than a page, or a part of a range, two more.
 * A queue of a few MiB lies between them. So a link that is slower than both sides decides alone, unless the sender
 * meets more empty memory at once than the queue lasts for: then the link waits for the scan.
 */
export interface ModelInput {
  readonly profile: MemoryProfile;
  readonly strategy: StrategyName;
  readonly link: LinkRates;
  readonly machine: MachineRates;
  /** Threads that each side has for pages: each does its share of the work. */
  readonly threads: number;
  /** Bytes. */
  readonly pageSize: number;
  /** Bytes that announce one empty page: 9, as in QEMU. */
  readonly headerSize: number;
}

export interface LinkRates {
  readonly bytesPerSecond: number;
  /** From a question to its answer. */
  readonly roundTripSeconds: number;
}

/** What this machine can do; the other is taken to be as fast. */
export interface MachineRates extends ProfileRates {
  /** Bytes a second of BLAKE3 over a leaf. */
  readonly hashRate: number;
  /** CPU to hand one byte to the kernel, or to take one from it. */
  readonly cpuSecondsPerByte: number;
  /** To write one whiteout, and to read one. */
  readonly writeWhiteoutSeconds: number;
  readonly readWhiteoutSeconds: number;
}

export interface Prediction {
  readonly seconds: number;
  /** What each would take if the others took nothing. */
  readonly linkSeconds: number;
  readonly senderSeconds: number;
  readonly receiverSeconds: number;
  /** Of the sender's: reading and scanning pages that turn out to hold nothing, which the balloon map may save. */
  readonly emptyScanSeconds: number;
  /** Of the link's and the sender's: whiteouts, which a bitmap may save. */
  readonly whiteoutSeconds: number;
  readonly wire: WireBytes;
}

/** Bytes that may be on the way between the sender's pages and the receiver's: our own queue and the kernels' buffers. */
const QUEUE_BYTES = 6 << 20;
/** Bytes of memory that the model looks at at a time. */
const STEP_BYTES = 1 << 20;
/** Round trips of a transfer: the connection, hello, end, commit. */
const ROUND_TRIPS = 4;
/** Bytes of the control messages of one transfer, both directions, their headers and the preambles included. */
const DIALOGUE_BYTES = 1100;

/** What a strategy does with a page of a kind. */
interface Treatment {
  readonly scans: boolean;
  readonly sends: boolean;
  readonly tells: 'whiteout' | 'range' | 'map' | 'nothing';
}

function treatmentOf(kind: ProfileKind, name: StrategyName): Treatment {
  const { identify, announce } = STRATEGIES[name];
  const isFree = kind === 'free' || kind === 'stale';
  const scans = identify === Identify.scan || !isFree;
  // Who knows no balloon takes what lies under it for data.
  const sends = scans && (kind === 'data' || kind === 'stale');
  if (sends) return { scans, sends, tells: 'nothing' };
  if (announce === Dialect.whiteouts || (announce === Dialect.map && !isFree))
    return { scans, sends, tells: 'whiteout' };
  return { scans, sends, tells: isFree ? 'map' : 'range' };
}

export function predict(input: ModelInput): Prediction {
  const { profile, strategy, link, machine, threads, pageSize, headerSize } = input;
  const wire = predictWire(input);
  const asks = STRATEGIES[strategy].identify === Identify.ask;
  const overhead = wire.data > 0 ? (wire.data + wire.hashes + HEADER_SIZE) / wire.data : 1;
  const whiteoutBytes = headerSize + HEADER_SIZE / MAX_WHITEOUTS;

  const takeInSeconds = (machine.cpuSecondsPerByte + 1 / machine.hashRate) / threads;
  const slackSeconds = QUEUE_BYTES * Math.max(1 / link.bytesPerSecond, takeInSeconds);
  const queue = new Pipeline(link.bytesPerSecond, slackSeconds);
  let emptyScanSeconds = 0;
  let whiteoutSeconds = 0;
  queue.add(asks ? machine.askSeconds : 0, wire.map, 0);
  for (const run of profile.runs) {
    const { scans, sends, tells } = treatmentOf(run.kind, strategy);
    if (!scans && tells !== 'whiteout') continue;
    for (let left = run.bytes; left > 0; left -= STEP_BYTES) {
      const bytes = Math.min(left, STEP_BYTES);
      const pages = bytes / pageSize;
      if (sends) {
        const { dataScanRate, hashRate, cpuSecondsPerByte } = machine;
        const moving = bytes * cpuSecondsPerByte;
        const sending = bytes / dataScanRate + bytes / hashRate + moving;
        queue.add(sending / threads, bytes * overhead, (moving + bytes / hashRate) / threads);
        continue;
      }
      const scanning = scans ? bytes / machine.zeroScanRate / threads : 0;
      emptyScanSeconds += scanning;
      if (tells !== 'whiteout') {
        queue.add(scanning, 0, 0);
        continue;
      }
      const writing = (pages * machine.writeWhiteoutSeconds) / threads;
      whiteoutSeconds += writing + (pages * whiteoutBytes) / link.bytesPerSecond;
      queue.add(scanning + writing, pages * whiteoutBytes, (pages * machine.readWhiteoutSeconds) / threads);
    }
  }
  return {
    seconds: queue.seconds + ROUND_TRIPS * link.roundTripSeconds,
    linkSeconds: queue.linkSeconds,
    senderSeconds: queue.senderSeconds,
    receiverSeconds: queue.receiverSeconds,
    emptyScanSeconds,
    whiteoutSeconds,
    wire,
  };
}

/** Three stages one behind the other, with bounded queues between them. Times at which each is free. */
class Pipeline {
  readonly #bytesPerSecond: number;
  readonly #slack: number;
  #sender = 0;
  #link = 0;
  #receiver = 0;
  senderSeconds = 0;
  linkSeconds = 0;
  receiverSeconds = 0;

  /** @param slackSeconds that a full queue lasts for */
  constructor(bytesPerSecond: number, slackSeconds: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#slack = slackSeconds;
  }

  get seconds(): number {
    return Math.max(this.#sender, this.#link, this.#receiver);
  }

  /** @param wireBytes may be 0: then only the sender has work */
  add(senderSeconds: number, wireBytes: number, receiverSeconds: number): void {
    const linkSeconds = wireBytes / this.#bytesPerSecond;
    this.senderSeconds += senderSeconds;
    this.linkSeconds += linkSeconds;
    this.receiverSeconds += receiverSeconds;
    // A side that is ahead by a full queue waits.
    this.#sender = Math.max(this.#sender, this.#link - this.#slack) + senderSeconds;
    if (wireBytes === 0) return;
    this.#link = Math.max(this.#link, this.#sender, this.#receiver - this.#slack) + linkSeconds;
    this.#receiver = Math.max(this.#receiver, this.#link) + receiverSeconds;
  }
}

/** The bytes follow from the profile alone, but for a few of the dialogue. */
export function predictWire({ profile, strategy, pageSize, headerSize }: ModelInput): WireBytes {
  const { announce, identify } = STRATEGIES[strategy];
  const bytesOf = (wanted: (treatment: Treatment) => boolean): number =>
    (Object.keys(profile.bytes) as ProfileKind[])
      .filter((kind) => wanted(treatmentOf(kind, strategy)))
      .reduce((sum, kind) => sum + profile.bytes[kind], 0);
  const data = bytesOf(({ sends }) => sends);
  const leaves = identify === Identify.scan ? profile.dataOrStaleLeaves : profile.dataLeaves;
  const whiteoutPages = bytesOf(({ tells }) => tells === 'whiteout') / pageSize;
  const freeMap =
    announce === Dialect.whiteouts ? 0 : rangeBytes(profile, pageSize, (kind) => kind === 'free' || kind === 'stale');
  const zeroRanges = announce === Dialect.ranges ? rangeBytes(profile, pageSize, (kind) => kind === 'zero') : 0;
  const frames = data / MAX_BATCH_BYTES + whiteoutPages / MAX_WHITEOUTS;
  return wireBytes({
    data,
    hashes: leaves * LEAF_RECORD_SIZE,
    whiteouts: whiteoutPages * headerSize,
    map: freeMap + zeroRanges,
    control: DIALOGUE_BYTES + Math.ceil(frames) * HEADER_SIZE,
  });
}

/** Runs as LEB128 numbers: the gap before each and its length. */
function rangeBytes({ runs }: MemoryProfile, pageSize: number, counts: (kind: ProfileKind) => boolean): number {
  let bytes = 0;
  let gap = 0;
  let length = 0;
  for (const run of [...runs, { kind: undefined, bytes: 0 }]) {
    const pages = run.bytes / pageSize;
    if (run.kind !== undefined && counts(run.kind)) {
      length += pages;
      continue;
    }
    if (length > 0) {
      // The first run of a frame has no gap before it: the frame says where it begins.
      bytes += lebBytes(bytes === 0 ? 0 : gap) + lebBytes(length);
      gap = 0;
      length = 0;
    }
    gap += pages;
  }
  return bytes;
}

function lebBytes(value: number): number {
  return Math.max(1, Math.ceil(Math.log2(value + 1) / 7));
}
