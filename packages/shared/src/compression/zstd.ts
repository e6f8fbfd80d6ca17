import * as zlib from 'node:zlib';
import type { Codec } from './codec.js';

/** What Node.js 22.15 and later have; the types that the project is built with are those of the oldest Node.js. */
interface ZstdOfNode {
  readonly zstdCompressSync: (bytes: Buffer, options: { params: Record<number, number> }) => Buffer;
  readonly zstdDecompressSync: (
    bytes: Buffer,
    options: { maxOutputLength: number; info: true },
  ) => { buffer: Buffer; engine: { bytesWritten: number } };
  readonly constants: { readonly ZSTD_c_compressionLevel: number };
}

/** The fastest of the usual levels: higher ones cost more time than they save on any link that is faster than 100 Mbit/s. */
const LEVEL = 1;
/** How every frame begins: the magic number, and a descriptor that says single segment, content size in 2 bytes, no more. */
const FRAME_START = Buffer.from('28b52ffd60', 'hex');
/** The content size follows, less 256, as u16 little-endian (RFC 8878, section 3.1.1.1.4). */
const CONTENT_SIZE_BASE = 256;
const HEADER_SIZE = FRAME_START.length + 2;

/** One Zstandard frame; undefined where this Node.js has none. */
export const zstd: Codec | undefined = hasZstd(zlib) ? codecWith(zlib) : undefined;

function hasZstd(module: object): module is ZstdOfNode {
  return 'zstdCompressSync' in module && 'zstdDecompressSync' in module;
}

function codecWith({ zstdCompressSync, zstdDecompressSync, constants }: ZstdOfNode): Codec {
  const params = { [constants.ZSTD_c_compressionLevel]: LEVEL };
  return {
    compress: (pages) => zstdCompressSync(pages, { params }),
    restore(stored, length) {
      // A single segment needs no window beside its contents, so this bounds all that decoding allocates.
      if (
        stored.length < HEADER_SIZE ||
        stored.compare(FRAME_START, 0, FRAME_START.length, 0, FRAME_START.length) !== 0 ||
        stored.readUInt16LE(FRAME_START.length) + CONTENT_SIZE_BASE !== length
      ) {
        return undefined;
      }
      try {
        const { buffer, engine } = zstdDecompressSync(stored, { maxOutputLength: length, info: true });
        return buffer.length === length && engine.bytesWritten === stored.length ? buffer : undefined;
      } catch {
        return undefined;
      }
    },
  };
}
