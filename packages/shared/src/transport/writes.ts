import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/** Hands the pieces of a frame, its header first, to a socket; `onFlushed` is told when the kernel has taken them, or never will. */
export type Write = (pieces: readonly Buffer[], onFlushed: () => void) => void;

/**
 * Bytes that TLS gets at a time. All of a write is encrypted before any of it leaves for the kernel, which should still
 * find it in the processor's cache; with much less, the calls cost more than the cache saves.
 */
const TLS_BYTES = 256 << 10;

/** How frames are best written to a socket. */
export function writerOf(socket: Socket): Write {
  return socket instanceof TLSSocket ? oneByOne(socket) : together(socket);
}

/** One system call for all pieces, and no copy of them. */
function together(socket: Socket): Write {
  return (pieces, onFlushed) => {
    socket.cork();
    pieces.forEach((piece, index) => socket.write(piece, index === pieces.length - 1 ? onFlushed : undefined));
    socket.uncork();
  };
}

/**
 * Node encrypts straight from a buffer that is written alone, but copies buffers that are written together into memory that
 * it allocates for them. Without `_writev`, a stream writes one after the other, however many wait. A header and a table
 * are cheaper to join than to write alone.
 */
function oneByOne(socket: Socket): Write {
  Object.defineProperty(socket, '_writev', { value: null });
  return (pieces, onFlushed) => {
    const slices = [Buffer.concat(pieces.slice(0, 2)), ...pieces.slice(2)].flatMap(cut);
    slices.forEach((slice, index) => socket.write(slice, index === slices.length - 1 ? onFlushed : undefined));
  };
}

function cut(piece: Buffer): Buffer[] {
  return Array.from({ length: Math.ceil(piece.length / TLS_BYTES) }, (_, index) =>
    piece.subarray(index * TLS_BYTES, (index + 1) * TLS_BYTES),
  );
}
