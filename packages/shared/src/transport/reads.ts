import { Socket, connect, type OnReadOpts } from 'node:net';
import { FrameDecoder } from '../protocol/index.js';
import { Connection, type ConnectionOptions } from './connection.js';

/**
 * How bytes get from a socket into the decoder. Node's `onread` option lets the kernel write into a buffer of ours, so
 * page bytes land where they are used, and no garbage is made. Only a socket made by oneself takes the option, so an
 * accepted connection is moved to a new Socket; that needs a private field, `_handle`. Where that field is not what we
 * know, the public way (`data` events, one more copy) is used.
 */
class DirectReads {
  readonly decoder = new FrameDecoder();
  #connection: Connection | undefined;

  readonly onread: OnReadOpts = {
    buffer: () => this.#connection?.target() ?? this.decoder.target(),
    callback: (count) => {
      if (this.#connection === undefined) return true;
      this.#connection.received(count);
      return this.#connection.wantsBytes;
    },
  };

  attach(connection: Connection): Connection {
    this.#connection = connection;
    return connection;
  }
}

/** Connects. The socket is returned at once; listen to `connect` and `error`. */
export function dial(host: string, port: number): { socket: Socket; start: (options: ConnectionOptions) => Connection } {
  const reads = new DirectReads();
  const socket = connect({ host, port, onread: reads.onread });
  return { socket, start: (options) => reads.attach(new Connection(socket, reads.decoder, options)) };
}

/** Makes a connection of a socket that a server with `pauseOnConnect` has accepted. */
export function accept(accepted: Socket, options: ConnectionOptions): Connection {
  const handle = detachHandle(accepted);
  if (handle === undefined) return byDataEvents(accepted, options);
  const reads = new DirectReads();
  const socket = new Socket({ handle, onread: reads.onread, manualStart: true } as ConstructorParameters<typeof Socket>[0]);
  const connection = reads.attach(new Connection(socket, reads.decoder, options));
  socket.resume();
  return connection;
}

/** Makes a connection of any stream socket, by its `data` events. */
export function byDataEvents(socket: Socket, options: ConnectionOptions): Connection {
  const connection = new Connection(socket, new FrameDecoder(), options);
  socket.on('data', (chunk: Buffer) => {
    connection.receivedChunk(chunk);
  });
  return connection;
}

/** Takes the libuv handle out of an accepted socket, which then counts as closed; undefined where Node has changed. */
function detachHandle(socket: Socket): object | undefined {
  const owner = socket as unknown as { _handle?: { useUserBuffer?: unknown } | null };
  const handle = owner._handle;
  if (handle === null || handle === undefined || typeof handle.useUserBuffer !== 'function') return undefined;
  owner._handle = null;
  socket.destroy();
  return handle;
}
