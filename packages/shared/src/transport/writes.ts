import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/** Hands the pieces of a frame to a socket; `onFlushed` is told when the kernel has taken them, or never will. */
export type Write = (pieces: readonly Buffer[], onFlushed: () => void) => void;

/**
 * Bytes that TLS gets at a time. All of a write is encrypted before any of it leaves, and what is encrypted is read again by
 * the kernel: so little is still in the processor's cache then. With much less, the calls cost more than the cache saves.
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
 * it allocates for them: a stream without `_writev` writes one after the other, however many wait. Small pieces, such as a
 * header and a table, are cheaper to join than to write alone.
 */
function oneByOne(socket: Socket): Write {
  Object.defineProperty(socket, '_writev', { value: null });
  return (pieces, onFlushed) => {
    const slices = pieces.length > 1 ? joinSmall(pieces).flatMap(cut) : pieces.flatMap(cut);
    slices.forEach((slice, index) => socket.write(slice, index === slices.length - 1 ? onFlushed : undefined));
  };
}

function joinSmall([first, second, ...rest]: readonly Buffer[]): Buffer[] {
  return [Buffer.concat([first, second].filter((piece) => piece !== undefined)), ...rest];
}

function cut(piece: Buffer): Buffer[] {
  if (piece.length <= TLS_BYTES) return [piece];
  return Array.from({ length: Math.ceil(piece.length / TLS_BYTES) }, (_, index) =>
    piece.subarray(index * TLS_BYTES, (index + 1) * TLS_BYTES),
  );
}
