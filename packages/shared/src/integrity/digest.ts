import type * as BlakeLibrary from '@napi-rs/blake-hash';
import { nativeLibrary } from '../native-library.js';

const blake = nativeLibrary('@napi-rs/blake-hash') as typeof BlakeLibrary;

/** Bytes of a BLAKE3 digest. */
export const DIGEST_SIZE = 32;

/**
 * BLAKE3 of the bytes: 32 bytes. By way of text, since a Buffer that the library makes itself costs a microsecond more,
 * as much as a tenth of hashing a leaf, and is garbage of the kind that is dear to collect.
 */
export function digestOf(bytes: Uint8Array): Buffer {
  return Buffer.from(blake.blake3UrlSafeBase64(bytes), 'base64url');
}

/** BLAKE3 of bytes that come in pieces. */
export class StreamingDigest {
  #hasher = new blake.Blake3Hasher();

  update(bytes: Uint8Array): this {
    this.#hasher.update(bytes);
    return this;
  }

  /** 32 bytes; the object must not be used afterwards. */
  finish(): Buffer {
    return this.#hasher.digestBuffer();
  }
}
