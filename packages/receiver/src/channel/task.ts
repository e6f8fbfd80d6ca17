import type { Compression } from '@ballast/shared/compression';
import type { ErrorCode } from '@ballast/shared/errors';
import type { ThreadAccount } from '@ballast/shared/measure';
import type { Dialect } from '@ballast/shared/protocol';
import type { SentBefore } from '@ballast/shared/transport';
import type { SharedStore } from '../destination/region-store.js';
import type { ListenerTls } from '../listener.js';
import type { ReceivedPart } from '../received-region.js';

/** All that the thread of one channel needs to know. */
export interface ChannelTask {
  readonly session: Uint8Array;
  readonly tls: ListenerTls | undefined;
  /** How many channels the session has. */
  readonly channels: number;
  readonly timeoutMs: number;
  /** Milliseconds that are left for a connection to join. */
  readonly patienceMs: number;
  /** Whether to tell where the thread's time went. */
  readonly measure: boolean;
  readonly dialect: Dialect;
  /** What both sides agreed on, as leaf records count it. */
  readonly compressions: readonly Compression[];
  readonly stores: readonly SharedStore[];
  /** Whether `read` of the stores gives back what was written. */
  readonly readsBack: boolean;
  /** Whether the sender asks what is held, here or in the older copies. */
  readonly holds: boolean;
  readonly old: readonly { readonly fd: number; readonly path: string; readonly bytes: number }[];
  /** Two Float64: bytes of memory told about, bytes on the wire. */
  readonly gauges: SharedArrayBuffer;
}

/** A connection that wants to become a channel, as the listener hands it over. */
export interface ChannelConnection {
  /** Which channel it wants to be, counted from 0. */
  readonly index: number;
  /** The descriptor, which whoever takes the connection owns. */
  readonly fd: number;
  /** Bytes that were read behind the opening. */
  readonly rest: Uint8Array;
  /** What this side has sent on it; undefined for nothing. */
  readonly sent: SentBefore | undefined;
  /** "ADDRESS:PORT" of the sender. */
  readonly address: string;
}

/** What the session says to the thread of a channel. */
export type ChannelOrder =
  | { readonly kind: 'connection'; readonly connection: ChannelConnection }
  | { readonly kind: 'stop'; readonly code: ErrorCode; readonly message: string };

/** What the thread of a channel says to the session. */
export type ChannelReport =
  /** The thread has this descriptor now, and will close it. */
  | { readonly kind: 'taken'; readonly fd: number }
  | { readonly kind: 'damaged'; readonly region: number; readonly leaf: number }
  /** An older copy cannot be read, and why. */
  | { readonly kind: 'old-failed'; readonly code: ErrorCode; readonly message: string }
  /** A connection was turned away, and why. */
  | { readonly kind: 'stranger'; readonly code: ErrorCode; readonly message: string }
  /** The sender has finished: what came, region by region. */
  | { readonly kind: 'finished'; readonly parts: readonly ReceivedPart[]; readonly account?: ThreadAccount }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string };

/** The gauges' places. */
export const Gauge = { coveredBytes: 0, wireBytes: 1 } as const;
