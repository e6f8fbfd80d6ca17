import type { ErrorCode } from './errors.js';

/**
 * What both programs tell while they work, as typed events of the library and as lines of `--json`. docs/events.md
 * describes them for users.
 */

/** The result of a transfer; both sides report the same figures, each its own `wireBytes` and `seconds`. */
export interface TransferResult {
  /** Root of the manifest, hexadecimal: equal on both sides, the receiver's read back from its file. */
  readonly root: string;
  /** Size of all memory files in bytes: data + zero + free. */
  readonly memoryBytes: number;
  /** Bytes of pages that are not zero. */
  readonly dataBytes: number;
  /** Bytes of pages that were scanned and are zero. */
  readonly zeroBytes: number;
  /** Bytes of pages that the balloon map takes out; always 0 with `unmodified`, which knows none. */
  readonly freeBytes: number;
  /** Bytes of all frames of the transfer in both directions, headers included. */
  readonly wireBytes: number;
  /** Bytes of pages sent, those sent twice counted twice. */
  readonly sentBytes: number;
  /** Bytes that those pages took on the wire: less than `sentBytes` by what compression saved. */
  readonly storedBytes: number;
  /** Pages read and scanned for zeros. */
  readonly scannedPages: number;
  /** Pages that the balloon map was asked for. */
  readonly askedPages: number;
  /** Whiteouts written, 9 bytes each. */
  readonly whiteouts: number;
  /** Bytes of page ranges: the balloon map and, with `bitmap`, the zero ranges. */
  readonly mapBytes: number;
  /** BLAKE3 of the balloon map that was used, hexadecimal. */
  readonly mapDigest: string;
  readonly strategy: string;
  /** From the connection to the published file. */
  readonly seconds: number;
}

export interface ProgressEvent {
  readonly event: 'progress';
  /** What is being done: "send", "check", "verify", "receive"… */
  readonly phase: string;
  /** Bytes of memory dealt with so far. */
  readonly doneBytes: number;
  /** Bytes of memory that there are to deal with. */
  readonly totalBytes: number;
  /** Bytes on the wire so far, both directions. */
  readonly wireBytes: number;
  readonly seconds: number;
  /** Of a live move: the number of the round. */
  readonly round?: number;
  /** Of a live move, after the first round: bytes of pages that the guest changes a second. */
  readonly dirtyBytesPerSecond?: number;
  /** Of a live move, after the first round: milliseconds that the guest would stand still if it were stopped now. */
  readonly expectedDowntimeMs?: number;
}

/** One pass of a live move over the guest's memory; the last is the one after the guest was stopped. */
export interface LiveRound {
  /** From 1 on. */
  readonly round: number;
  /** Bytes of pages that were sent: in the first round all, later what had changed. */
  readonly sentBytes: number;
  /** Bytes of all frames in both directions. */
  readonly wireBytes: number;
  /** Seconds of finding and sending, until the destination had stored it. */
  readonly seconds: number;
}

/** Where the downtime went, in milliseconds; the sum is the downtime. */
export interface DowntimeParts {
  /** QEMU stops the guest. */
  readonly stopMs: number;
  /** All memory is hashed as it stands, and compared with what was sent. */
  readonly findMs: number;
  /** What differs is sent. */
  readonly sendMs: number;
  /** The root is computed on both sides. */
  readonly rootMs: number;
  /** QEMU saves the state of its devices. */
  readonly stateMs: number;
  /** It travels, and the waiting QEMU loads it. */
  readonly loadMs: number;
  /** The commit travels, the guest is resumed, and the word of it comes back. */
  readonly contMs: number;
}

/** The result of a live move, as the sender tells it. */
export interface LiveResult extends TransferResult {
  /** Milliseconds from the stop of the guest here until its resumption there was known here. */
  readonly downtimeMs: number;
  readonly downtime: DowntimeParts;
  readonly rounds: readonly LiveRound[];
  /** Bytes that QEMU says the balloon leaves to the guest; undefined where it has no balloon. */
  readonly balloonActualBytes: number | undefined;
}

/** What a live move would cost. */
export interface MoveForecast {
  readonly memory: readonly { readonly id: string; readonly path: string; readonly bytes: number }[];
  /** Whether the guest runs now. */
  readonly running: boolean;
  readonly memoryBytes: number;
  /** Bytes that are no holes. */
  readonly residentBytes: number;
  /** Bytes of pages that are not zero: about what a first round sends. */
  readonly dataBytes: number;
  /** Bytes that QEMU says the balloon leaves to the guest, where it has one. */
  readonly balloonActualBytes?: number;
  /** Seconds of one pass over all memory: the downtime is a little longer. */
  readonly passSeconds: number;
  /** Bytes of leaves that changed between two passes, a second. */
  readonly changedBytesPerSecond: number;
}

export interface ForecastEvent extends MoveForecast {
  readonly event: 'forecast';
}

/** What `recover` found and did. */
export interface RecoveredEvent {
  readonly event: 'recovered';
  /** How far the interrupted move had come: none, rounds, throttled, stopped, committing. */
  readonly stage: string;
  readonly action: 'nothing' | 'resumed' | 'left-paused' | 'quit';
  readonly message: string;
}

export interface ListeningEvent {
  readonly event: 'listening';
  readonly host: string;
  readonly port: number;
}

/** The connection stands and the other side agreed. */
export interface ConnectedEvent {
  readonly event: 'connected';
  /** Address of the other side. */
  readonly peer: string;
  /** Whether the destination holds something from before, of which only what differs is sent. */
  readonly resumes: boolean;
  /** Connections that carry the pages: 1, or as many as the two sides agreed on beside the session's. */
  readonly channels: number;
}

/** Something that the user should know and that does not end the transfer: a stranger was turned away… */
export interface WarningEvent {
  readonly event: 'warning';
  readonly code: ErrorCode;
  readonly message: string;
}

/** The connection broke, and will be made again. */
export interface RetryEvent {
  readonly event: 'retry';
  /** Why the connection before ended. */
  readonly code: ErrorCode;
  readonly message: string;
  /** How many connections broke so far. */
  readonly attempt: number;
  /** Seconds until the next try. */
  readonly inSeconds: number;
}

export interface DoneEvent extends TransferResult {
  readonly event: 'done';
}

export interface LiveDoneEvent extends LiveResult {
  readonly event: 'done';
}

export type SendEvent =
  | ConnectedEvent
  | RetryEvent
  | ProgressEvent
  | WarningEvent
  | DoneEvent
  | LiveDoneEvent
  | ForecastEvent
  | RecoveredEvent;
export type ReceiveEvent = ListeningEvent | ConnectedEvent | RetryEvent | ProgressEvent | WarningEvent | DoneEvent;

/** Milliseconds between two progress events. */
const PROGRESS_INTERVAL_MS = 250;

/** Calls `report` at even intervals until it is stopped, so that progress costs the data path nothing. */
export function everyInterval(report: () => void): { stop(): void } {
  const timer = setInterval(report, PROGRESS_INTERVAL_MS);
  return {
    stop() {
      clearInterval(timer);
    },
  };
}
