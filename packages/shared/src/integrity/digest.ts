import blake from '@napi-rs/blake-hash';

/** Bytes of a BLAKE3 digest. */
export const DIGEST_SIZE = 32;

/** BLAKE3 of the bytes: 32 bytes. */
export function digestOf(bytes: Uint8Array): Buffer {
  return blake.blake3(bytes);
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
