import { Packr } from 'msgpackr';
import * as v from 'valibot';
import { BallastError, ErrorCode } from '../errors.js';
import { Compression } from '../compression/codec.js';
import { MAX_REGION_BYTES, PAGE_SIZE } from '../memory/page.js';
import { DIGEST_SIZE } from '../integrity/digest.js';
import {
  FrameType,
  MAX_CHANNELS,
  MAX_MESSAGE_LENGTH,
  MAX_PAYLOAD,
  MAX_PROBE_BYTES,
  MAX_PROBE_SECONDS,
  MAX_REGIONS,
  MAX_RESEND_LEAVES,
  MAX_ROUNDS,
  SESSION_SIZE,
} from './constants.js';
import { accountSchema } from './account-message.js';
import { checkPlain } from './plain-messagepack.js';

/** How the sender announces pages that need not be sent: which frames a stream may hold. */
export const Dialect = {
  /** A whiteout for each page, whether ballooned out or found to be zero. Strategies unmodified and consult. */
  whiteouts: 'whiteouts',
  /** The balloon map ahead as ranges, a whiteout for each zero page. Strategy skip. */
  map: 'map',
  /** Both as ranges. Strategy bitmap. */
  ranges: 'ranges',
} as const;

export type Dialect = (typeof Dialect)[keyof typeof Dialect];

const byteCount = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const digest = v.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length === DIGEST_SIZE);
const session = v.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length === SESSION_SIZE);
const channelCount = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_CHANNELS));
const text = v.pipe(v.string(), v.maxLength(MAX_MESSAGE_LENGTH));
const roundNumber = v.pipe(byteCount, v.minValue(1), v.maxValue(MAX_ROUNDS));
/** Compressions, each once. */
const compressions = v.exactOptional(
  v.pipe(
    v.array(v.picklist([Compression.lz4, Compression.zstd])),
    v.minLength(1),
    v.check((names) => new Set(names).size === names.length, 'must all be different'),
  ),
);
const regionSize = v.pipe(byteCount, v.minValue(PAGE_SIZE), v.maxValue(MAX_REGION_BYTES), v.multipleOf(PAGE_SIZE));

/** What the sender counted, for the receiver's own report. Bytes, pages where the name says so. */
const summarySchema = v.strictObject({
  strategy: v.picklist(['unmodified', 'consult', 'skip', 'bitmap']),
  /** Bytes of pages that are not zero. */
  dataBytes: byteCount,
  /** Bytes of pages that were scanned and are zero. */
  zeroBytes: byteCount,
  /** Bytes of pages that the balloon map takes out. */
  freeBytes: byteCount,
  /** Pages read and scanned for zeros. */
  scannedPages: byteCount,
  /** Pages that the balloon map was asked for. */
  askedPages: byteCount,
  /** Whiteouts written; each is 9 bytes. */
  whiteouts: byteCount,
  /** Bytes of range frames: the balloon map, and with it zero ranges under `bitmap`. */
  mapBytes: byteCount,
  /** Bytes of pages that were sent, those sent twice counted twice. */
  sentBytes: byteCount,
  /** Bytes that those pages took in leaves frames: less than sentBytes where they were compressed. */
  storedBytes: byteCount,
  /** BLAKE3 of the balloon map that was used, in hexadecimal. */
  mapDigest: v.pipe(v.string(), v.length(2 * DIGEST_SIZE), v.regex(/^[0-9a-f]*$/i)),
});

export type Summary = Readonly<v.InferOutput<typeof summarySchema>>;

const controlSchema = v.variant('kind', [
  v.strictObject({
    kind: v.literal('hello'),
    /** Random; the same for each connection of one transfer, so that a new one can take the place of one that broke. */
    session,
    /** Bytes of each region, in order. */
    regions: v.pipe(
      v.array(regionSize),
      v.minLength(1),
      v.maxLength(MAX_REGIONS),
      v.check(
        (sizes) => sizes.reduce((sum, size) => sum + size, 0) <= MAX_REGION_BYTES,
        'must be 64 TiB or less in all',
      ),
    ),
    dialect: v.picklist(Object.values(Dialect)),
    /** What leaves may be compressed with; each may still come as it is. */
    compress: v.picklist(Object.values(Compression)),
    /** What they may be compressed with besides, where the receiver takes it; left out for nothing. */
    offers: compressions,
    /** At most this many bytes of pages will be sent: what the destination may need. */
    dataBytesAtMost: byteCount,
    /** Connections beside this one that the sender would like to have for the pages; 0: this one carries them. */
    channels: channelCount,
    /** Whether a running guest is moved: then rounds and device state follow, and the destination is a waiting guest. */
    live: v.boolean(),
  }),
  v.strictObject({
    kind: v.literal('welcome'),
    /** Whether the destination holds something already: then holdings follow, and what they name may be left out. */
    holds: v.boolean(),
    /** Channels that the sender is to open: as many as it asked for, or fewer. */
    channels: channelCount,
    /** Those of the sender's offers that can be restored here; left out for none. */
    takes: compressions,
  }),
  v.strictObject({
    /** Instead of welcome: this very session was published already, and only the word of it got lost. */
    kind: v.literal('published-before'),
    root: digest,
  }),
  v.strictObject({
    /** First on a channel: which session it belongs to. */
    kind: v.literal('join'),
    session,
  }),
  v.strictObject({ kind: v.literal('joined') }),
  v.strictObject({
    /** On a channel: what is held of the leaves from `first` up to, and without, `end`? */
    kind: v.literal('ask'),
    region: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_REGIONS - 1)),
    first: byteCount,
    end: byteCount,
  }),
  /** Last on a channel: nothing more will come. */
  v.strictObject({ kind: v.literal('finished') }),
  v.strictObject({
    /** Instead of welcome, to a live sender whose commit may have got lost: the guest never ran here, and never will. */
    kind: v.literal('never-published'),
  }),
  v.strictObject({ kind: v.literal('refuse'), code: text, message: text }),
  v.strictObject({
    /** The live round before this one is told; from here on a leaf that is told about replaces what was told before. */
    kind: v.literal('round'),
    number: roundNumber,
  }),
  v.strictObject({
    /** All of a live round is stored. */
    kind: v.literal('received'),
    round: roundNumber,
    /** [region, leaf] pairs whose contents arrived wrong: to be told again, whole, in the next round. */
    again: v.pipe(v.array(v.strictTuple([byteCount, byteCount])), v.maxLength(MAX_RESEND_LEAVES)),
  }),
  v.strictObject({ kind: v.literal('end'), root: digest, summary: summarySchema }),
  v.strictObject({
    kind: v.literal('resend'),
    /** [region, leaf] pairs whose contents arrived wrong. */
    leaves: v.pipe(v.array(v.strictTuple([byteCount, byteCount])), v.minLength(1), v.maxLength(MAX_RESEND_LEAVES)),
  }),
  v.strictObject({ kind: v.literal('verified'), root: digest }),
  v.strictObject({
    /** The device state of a live guest, in state frames before this, is complete. */
    kind: v.literal('state-end'),
    bytes: byteCount,
    /** Whether the guest ran before the move, and so is to run after it. */
    running: v.boolean(),
  }),
  /** The waiting guest has taken the device state in, and stands still. */
  v.strictObject({ kind: v.literal('loaded') }),
  v.strictObject({ kind: v.literal('commit') }),
  v.strictObject({ kind: v.literal('published') }),
  /** The word of publishing arrived. */
  v.strictObject({ kind: v.literal('goodbye') }),
  /** Before hello: the receiver is to tell at the end where its time went. */
  v.strictObject({ kind: v.literal('measure') }),
  accountSchema,
  /** Instead of hello: no memory comes, but filler frames, to learn what the link carries. */
  v.strictObject({ kind: v.literal('probe') }),
  v.strictObject({ kind: v.literal('probe-ready') }),
  /** All filler frames were sent. */
  v.strictObject({ kind: v.literal('probe-end') }),
  v.strictObject({
    kind: v.literal('probed'),
    /** Payload of the filler frames that came. */
    bytes: v.pipe(byteCount, v.maxValue(MAX_PROBE_BYTES)),
    /** From `probe-ready` to `probe-end`, on the receiver's clock. */
    microseconds: v.pipe(byteCount, v.maxValue(MAX_PROBE_SECONDS * 1e6)),
  }),
  v.strictObject({ kind: v.literal('heartbeat') }),
  v.strictObject({ kind: v.literal('abort'), code: text, message: text }),
]);

export type ControlMessage = v.InferOutput<typeof controlSchema>;
export type ControlKind = ControlMessage['kind'];
export type ControlOf<K extends ControlKind> = Extract<ControlMessage, { kind: K }>;

/** Plain maps only: no record extension, so that a stream never depends on what came before it. */
const packr = new Packr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number', largeBigIntToString: false });

/** @throws BallastError INTERNAL when the message is larger than a control frame may be */
export function encodeControl(message: ControlMessage): Buffer {
  const payload = packr.pack(message);
  if (payload.length > MAX_PAYLOAD[FrameType.control]) {
    throw new BallastError(
      ErrorCode.INTERNAL,
      `a ${message.kind} message of ${payload.length} bytes does not fit a control frame`,
    );
  }
  return payload;
}

/**
 * Reads a control message and checks every field of it.
 * @throws BallastError PROTOCOL when it is not MessagePack, or not one of the messages of docs/protocol.md
 */
export function decodeControl(payload: Buffer): ControlMessage {
  let value: unknown;
  try {
    checkPlain(payload);
    value = packr.unpack(payload);
  } catch (error) {
    throw new BallastError(ErrorCode.PROTOCOL, 'the peer sent a control message that is not plain MessagePack', {
      cause: error,
    });
  }
  const parsed = v.safeParse(controlSchema, value, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const where = v.getDotPath(issue);
    throw new BallastError(
      ErrorCode.PROTOCOL,
      `the peer sent a control message that the protocol does not know${where === null ? '' : ` (field ${where.slice(0, 100)})`}`,
    );
  }
  return parsed.output;
}
