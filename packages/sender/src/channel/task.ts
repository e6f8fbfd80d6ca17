import type { Compression } from '@ballast/shared/compression';
import type { ErrorCode } from '@ballast/shared/errors';
import type { ManifestEntries } from '@ballast/shared/integrity';
import type { ThreadAccount } from '@ballast/shared/measure';
import type { Dialect } from '@ballast/shared/protocol';
import type { Address, TlsDialOptions } from '@ballast/shared/transport';
import type { CompressionChoice } from '../compression/choice.js';
import type { SharedRegion } from '../source/memory-source.js';
import type { SharedStretches } from './stretches.js';

/** All that the thread of one channel needs to know. */
export interface ChannelTask {
  /** Which of the session's channels it is, counted from 0. */
  readonly index: number;
  readonly to: Address;
  readonly tls: TlsDialOptions | undefined;
  readonly connectMs: number;
  /** How many channels the session has. */
  readonly channels: number;
  readonly timeoutMs: number;
  /** Bytes a second that this channel sends at most; Infinity for no cap. */
  readonly bandwidth: number;
  readonly session: Uint8Array;
  readonly dialect: Dialect;
  readonly compress: CompressionChoice;
  readonly compressions: readonly Compression[];
  /** Whether the destination holds something: then each stretch is asked about before it is sent. */
  readonly holds: boolean;
  readonly regions: readonly SharedRegion[];
  readonly stretches: SharedStretches;
  /** One Int32: the index of the next stretch that nobody has claimed, shared by all channels. */
  readonly cursor: SharedArrayBuffer;
  /** Whether to tell where the thread's time went. */
  readonly measure: boolean;
  /** See PassGauges. */
  readonly gauges: SharedArrayBuffer;
}

/** What the thread of a channel says to the session. */
export type ChannelReport =
  /** It runs. */
  | { readonly kind: 'started' }
  /** All that it claimed was sent: what that is, region by region. */
  | { readonly kind: 'finished'; readonly entries: readonly ManifestEntries[]; readonly account?: ThreadAccount }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string }
  /** The receiver knows it as a channel of the session. */
  | { readonly kind: 'joined' };

/** What the session says to the thread of a channel: give up, for this reason. */
export interface ChannelStop {
  readonly code: ErrorCode;
  readonly message: string;
}
