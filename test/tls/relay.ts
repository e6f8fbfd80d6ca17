import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Address } from '@ballast/shared/transport';
import type { ExecutionContext } from 'ava';

export interface RelayOptions {
  /** Bytes of the sender after which the connection is cut, once; later connections are let through. */
  readonly cutAfter?: number;
  /** Bytes of the sender after which the rest is held back until `release`. */
  readonly holdAfter?: number;
}

/** Stands between a sender and a receiver, connection after connection, and knows nothing of what they say. */
export class Relay {
  readonly #server: Server;
  readonly #target: Address;
  readonly #options: RelayOptions;
  readonly #sockets = new Set<Socket>();
  readonly #chunks: Buffer[] = [];
  #forwarded = 0;
  #wasCut = false;
  #released = false;
  #wake: (() => void) | undefined;
  #onHeld: () => void = () => undefined;
  /** Resolves when bytes are held back. */
  readonly held = new Promise<void>((resolve) => {
    this.#onHeld = resolve;
  });

  private constructor(server: Server, target: Address, options: RelayOptions) {
    this.#server = server;
    this.#target = target;
    this.#options = options;
    server.on('connection', (sender) => {
      this.#join(sender);
    });
  }

  static async open(t: ExecutionContext, target: Address, options: RelayOptions = {}): Promise<Relay> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const relay = new Relay(server, target, options);
    t.teardown(() => {
      server.close();
      for (const socket of relay.#sockets) socket.destroy();
    });
    return relay;
  }

  get address(): Address {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') throw new Error('the relay has no address');
    return { host: bound.address, port: bound.port };
  }

  /** All that was said in both directions. */
  get recorded(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  release(): void {
    this.#released = true;
    this.#wake?.();
  }

  #join(sender: Socket): void {
    const receiver = connect({ ...this.#target, allowHalfOpen: true });
    const cut = (): void => {
      sender.destroy();
      receiver.destroy();
    };
    for (const [from, to] of [
      [sender, receiver],
      [receiver, sender],
    ] as const) {
      this.#sockets.add(from);
      from.on('close', () => this.#sockets.delete(from));
      from.on('error', cut);
      from.on('end', () => to.end());
      from.on('data', (chunk: Buffer) => {
        this.#chunks.push(chunk);
        const forward = (): void => {
          if (to.write(chunk)) from.resume();
          else to.once('drain', () => from.resume());
        };
        from.pause();
        if (from === sender && !this.#mayPass(chunk.length, cut, forward)) return;
        forward();
      });
    }
  }

  /** Counts bytes of the sender, and cuts or holds the connection where that is wanted. */
  #mayPass(bytes: number, cut: () => void, forward: () => void): boolean {
    this.#forwarded += bytes;
    const { cutAfter = Infinity, holdAfter = Infinity } = this.#options;
    if (!this.#wasCut && this.#forwarded > cutAfter) {
      this.#wasCut = true;
      cut();
      return false;
    }
    if (!this.#released && this.#forwarded > holdAfter) {
      this.#wake = forward;
      this.#onHeld();
      return false;
    }
    return true;
  }
}
