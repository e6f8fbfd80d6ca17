import { crc32 } from 'node:zlib';
import { BallastError, ErrorCode } from '../errors.js';
import { FrameType, HEADER_SIZE, MAX_PAYLOAD } from './constants.js';

/**
 *      0      1      2        4          8         12        16                24         28         32
 *      +------+------+--------+----------+---------+---------+-----------------+----------+----------+
 *      | type | flags| region | sequence | length  |  count  |      base       | payload  |  header  |
 *      |  u8  |  u8  |  u16   |   u32    |  u32    |   u32   |       u64       | CRC-32   |  CRC-32  |
 *      +------+------+--------+----------+---------+---------+-----------------+----------+----------+
 *
 * All little-endian. The header checksum covers the 28 bytes before it. The payload checksum covers the payload, but
 * in a leaves frame only its table: page bytes are proved by their leaf's digest; and nothing in a filler frame.
 */
export interface FrameHeader {
  readonly type: FrameType;
  /** Index of the region that the frame speaks of; 0 in control frames. */
  readonly region: number;
  /** Frames sent before on this connection in this direction, modulo 2^32. */
  readonly sequence: number;
  /** Bytes of the payload. */
  readonly length: number;
  /** Records in the payload; 0 in control frames. */
  readonly count: number;
  /** Where the records count from: a leaf index (leaves, holdings) or a page index (ranges); 0 otherwise. */
  readonly base: number;
  /** CRC-32 of the checksummed part of the payload. */
  readonly payloadChecksum: number;
}

const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(FrameType));

function isFrameType(value: number): value is FrameType {
  return KNOWN_TYPES.has(value);
}

/** Buffer's own methods are JavaScript, which V8 compiles first. */
function viewOf(header: Buffer): DataView {
  return new DataView(header.buffer, header.byteOffset, HEADER_SIZE);
}

export function encodeHeader(header: FrameHeader, into: Buffer = Buffer.allocUnsafe(HEADER_SIZE)): Buffer {
  const view = viewOf(into);
  into[0] = header.type;
  into[1] = 0;
  view.setUint16(2, header.region, true);
  view.setUint32(4, header.sequence, true);
  view.setUint32(8, header.length, true);
  view.setUint32(12, header.count, true);
  view.setUint32(16, header.base % 2 ** 32, true);
  view.setUint32(20, Math.floor(header.base / 2 ** 32), true);
  view.setUint32(24, header.payloadChecksum, true);
  view.setUint32(28, crc32(into.subarray(0, 28)), true);
  return into;
}

/**
 * Reads a header and checks all that can be checked of it without its payload.
 * @throws BallastError CORRUPT_STREAM when the checksum or the sequence number is wrong, PROTOCOL when another field is
 */
export function decodeHeader(bytes: Buffer, expectedSequence: number): FrameHeader {
  const view = viewOf(bytes);
  if (view.getUint32(28, true) !== crc32(bytes.subarray(0, 28))) {
    throw new BallastError(
      ErrorCode.CORRUPT_STREAM,
      `frame ${expectedSequence} arrived with a damaged header (its checksum does not match); the connection cannot be trusted any further`,
    );
  }
  const type = bytes[0] ?? 0;
  const sequence = view.getUint32(4, true);
  const length = view.getUint32(8, true);
  const base = view.getUint32(16, true) + view.getUint32(20, true) * 2 ** 32;
  if (sequence !== expectedSequence) {
    throw new BallastError(
      ErrorCode.CORRUPT_STREAM,
      `frame ${expectedSequence} was expected and frame ${sequence} came; the connection lost, repeated or reordered bytes`,
    );
  }
  if (!isFrameType(type)) throw new BallastError(ErrorCode.PROTOCOL, `the peer sent a frame of unknown type ${type}`);
  if (bytes[1] !== 0)
    throw new BallastError(ErrorCode.PROTOCOL, `the peer sent a frame with unknown flags ${bytes[1]}`);
  if (length > MAX_PAYLOAD[type]) {
    throw new BallastError(
      ErrorCode.PROTOCOL,
      `the peer announced a frame of type ${type} with ${length} bytes; at most ${MAX_PAYLOAD[type]} are allowed`,
    );
  }
  if (!Number.isSafeInteger(base)) throw new BallastError(ErrorCode.PROTOCOL, 'the peer sent an offset beyond 2^53');
  const region = view.getUint16(2, true);
  const count = view.getUint32(12, true);
  const hasNoRecords = type === FrameType.control || type === FrameType.state || type === FrameType.filler;
  if (
    (hasNoRecords && (region !== 0 || count !== 0)) ||
    ((hasNoRecords || type === FrameType.whiteouts) && base !== 0)
  ) {
    throw new BallastError(
      ErrorCode.PROTOCOL,
      `the peer sent a frame of type ${type} that sets a field which must be 0`,
    );
  }
  return {
    type,
    region,
    sequence,
    length,
    count,
    base,
    payloadChecksum: view.getUint32(24, true),
  };
}
