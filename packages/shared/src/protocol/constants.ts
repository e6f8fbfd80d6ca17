/**
 * The protocol in numbers. docs/protocol.md is normative; this file is its transcript.
 *
 *     sender                                   receiver
 *       | preamble, hello {regions, dialect…}      |
 *       |----------------------------------------->|
 *       |          preamble, welcome | refuse      |
 *       |<-----------------------------------------|
 *       |                 holdings* (held leaves)  |   only when it holds something
 *       |<-----------------------------------------|
 *       | freeRanges*                              |   skip and bitmap: the balloon map, ahead
 *       | (leaves | whiteouts | zeroRanges)*       |   by ascending address
 *       | end {root, summary}                      |
 *       |----------------------------------------->|
 *       |              resend {…} | verified {root}|   resend: leaves that arrived wrong, then `end` again
 *       |<-----------------------------------------|
 *       | commit                                   |
 *       |----------------------------------------->|
 *       |                             published    |   the file has its name
 *       |<-----------------------------------------|
 *       | goodbye                                  |
 *       |----------------------------------------->|
 *
 * With channels, welcome is followed by connections of their own, and what lies between holdings and `end` goes over them:
 *
 *     sender's channel                         receiver's channel
 *       | channel preamble, preamble, join         |
 *       |----------------------------------------->|
 *       |                         preamble, joined |
 *       |<-----------------------------------------|
 *       | (ask)* (leaves | whiteouts | zeroRanges)*|   ask: only when the receiver holds something
 *       |----------------------------------------->|
 *       |                                holdings* |
 *       |<-----------------------------------------|
 *       | finished                                 |
 *       |----------------------------------------->|
 *
 * Both sides may send `heartbeat` and `abort` at any time after their preamble.
 */

/** First bytes of each direction: seven letters, then the protocol's major version. */
export const PREAMBLE = Buffer.from('BALLAST\x01', 'latin1');
export const PROTOCOL_VERSION = 1;
/** The letters with which a connection begins that is to become a channel of a session. */
const CHANNEL_LETTERS = 'BALLCH';

/**
 * First bytes of channel `index`, counted from 0: six letters, the index, the protocol's major version. They are in the
 * clear also where TLS follows, so that the receiver can hand the connection to the thread that serves this channel
 * before anything else of it is read.
 */
export function channelPreamble(index: number): Buffer {
  return Buffer.from([...Buffer.from(CHANNEL_LETTERS, 'latin1'), index, PROTOCOL_VERSION]);
}

/** Whether bytes, fewer than a preamble has, may be the beginning of a channel's. */
export function mayBeChannel(bytes: Buffer): boolean {
  const letters = bytes.toString('latin1', 0, CHANNEL_LETTERS.length);
  return bytes.length < PREAMBLE.length && CHANNEL_LETTERS.startsWith(letters);
}

/** Which channel the first bytes of a connection are for; undefined when they are none of a channel. */
export function channelOf(preamble: Buffer): number | undefined {
  if (preamble.length < PREAMBLE.length) return undefined;
  const index = preamble[CHANNEL_LETTERS.length];
  const isChannel = index !== undefined && preamble.subarray(0, PREAMBLE.length).equals(channelPreamble(index));
  return isChannel && index < MAX_CHANNELS ? index : undefined;
}

/** Channels of one session. */
export const MAX_CHANNELS = 16;

/** Bytes of a frame's header. */
export const HEADER_SIZE = 32;

/** What a frame carries. Zero is no type. */
export const FrameType = {
  /** One MessagePack map with a key `kind`. Both directions. */
  control: 1,
  /** Leaf entries, then the bytes of their pages. Sender to receiver. */
  leaves: 2,
  /** 9 bytes for each page that reads as zeros. Sender to receiver. */
  whiteouts: 3,
  /** Runs of pages that the balloon took out. Sender to receiver. */
  freeRanges: 4,
  /** Runs of pages that were scanned and are zero. Sender to receiver. */
  zeroRanges: 5,
  /** Leaf entries and page hints of what the destination holds. Receiver to sender. */
  holdings: 6,
  /** Bytes of a live guest's device state, as QEMU writes them. Sender to receiver. */
  state: 7,
  /** Bytes that mean nothing, to learn what a link carries. Sender to receiver, after `probe` only. */
  filler: 8,
} as const;

export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Bytes of pages that one leaves frame carries at most, counted before they are compressed. */
export const MAX_BATCH_BYTES = 1 << 20;
/** Bytes of one entry in a leaves frame's table. */
export const LEAF_RECORD_SIZE = 48;
/** Entries of one leaves frame: as many as fit when each has one page and there is still room for a whole leaf. */
export const MAX_BATCH_LEAVES = (MAX_BATCH_BYTES - 65536) / 4096 + 1;
/** Bytes of one whiteout, as many as QEMU spends: eight of address, one of fill. */
export const WHITEOUT_SIZE = 9;
export const MAX_WHITEOUTS = 7281;

/** The largest payload of each type, in bytes. Checked before anything is buffered. */
export const MAX_PAYLOAD: Readonly<Record<FrameType, number>> = {
  [FrameType.control]: 65536,
  [FrameType.leaves]: MAX_BATCH_LEAVES * LEAF_RECORD_SIZE + MAX_BATCH_BYTES,
  [FrameType.whiteouts]: MAX_WHITEOUTS * WHITEOUT_SIZE,
  [FrameType.freeRanges]: 65536,
  [FrameType.zeroRanges]: 65536,
  [FrameType.holdings]: 65536,
  [FrameType.state]: 262144,
  [FrameType.filler]: MAX_BATCH_BYTES,
};

/** Regions of one transfer: backends of one guest. */
export const MAX_REGIONS = 64;
/** Characters of an error message that a peer may send. */
export const MAX_MESSAGE_LENGTH = 1024;
/** Leaves that one `resend` asks for. */
export const MAX_RESEND_LEAVES = 1024;
/** Rounds of a live move. */
export const MAX_ROUNDS = 10_000;
/** Times that the same leaf may arrive wrong before the transfer fails. */
export const MAX_LEAF_ATTEMPTS = 4;
/** Characters of what a receiver says about its machine, each. */
export const MAX_MACHINE_TEXT = 200;
/** Payload of all filler frames of one probe, in bytes. */
export const MAX_PROBE_BYTES = 2 ** 36;
/** Seconds that a receiver gives to one probe. */
export const MAX_PROBE_SECONDS = 60;
/** Bytes of the token that names a session: the connections of one `sendMemory` share it. */
export const SESSION_SIZE = 16;
