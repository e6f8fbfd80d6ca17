import { closeSync, openSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import { BallastError, ErrorCode, outOfDescriptors, systemCode } from '@ballast/shared/errors';
import { Cause, SideMeasurement } from '@ballast/shared/measure';
import type { ControlOf } from '@ballast/shared/protocol';
import {
  accept,
  byDataEvents,
  duplicateDescriptor,
  formatAddress,
  isLoopback,
  secured,
  type Address,
  type Connection,
  type ConnectionOptions,
} from '@ballast/shared/transport';
import type { ChannelConnection } from './channel/task.js';
import { Handshakes } from './handshakes.js';
import { serveProbe } from './probe.js';
import { distrust } from './trust.js';

/** Connections that have not said hello yet; beyond that the oldest is dropped, so that idle strangers keep nobody out. */
const MAX_STRANGERS = 256;
/** Milliseconds between looks at whether a descriptor is left for who may come. */
const DESCRIPTOR_LOOK_MS = 5000;
/** Milliseconds that a connection has for its hello. */
const HELLO_TIMEOUT_MS = 10_000;

/** A sender that has said hello and waits for an answer. */
export interface Caller {
  readonly connection: Connection;
  readonly hello: ControlOf<'hello'>;
  /** "ADDRESS:PORT" of the sender. */
  readonly address: string;
  /** Where this side's time goes, if the sender wants to know. */
  readonly measurement: SideMeasurement | undefined;
}

/** Whom a TLS listener lets in. */
export interface ListenerTls {
  readonly identity: SecureContextOptions;
  /** Names of which a sender's certificate must have one; empty for every certificate that the authority issued. */
  readonly allowedNames: readonly string[];
}

export interface ListenerOptions {
  readonly address: Address;
  /** Undefined for plain TCP. */
  readonly tls: ListenerTls | undefined;
  readonly timeoutMs: number;
  /** Told of every connection that was turned away, and why. */
  readonly onStranger: (error: BallastError) => void;
}

/**
 * Listens, and picks senders out of whatever connects: a connection counts only once its hello was read and checked.
 * One caller is served at a time; others are told so.
 */
export class Listener {
  #server: Server;
  #options: ListenerOptions;
  #strangers = new Set<Connection>();
  #closing = new Set<Promise<void>>();
  #handshakes: Handshakes | undefined;
  #waiting: ((caller: Caller) => void) | undefined;
  /** Who is being served; its own next connection takes its place. */
  #current: Caller | undefined;
  /** The connection that learns what the link carries; one at a time, and only while no memory comes. */
  #probing: Connection | undefined;
  /** A caller that came back before anyone waited for it. */
  #returned: Caller | undefined;
  /** Whether its user was told that connections find no descriptor. */
  #toldOfDescriptors = false;
  /** Where connections go that want to become a channel of the session being served. */
  #channels: ((connection: ChannelConnection) => void) | undefined;

  private constructor(server: Server, options: ListenerOptions) {
    this.#server = server;
    this.#options = options;
    const { tls } = options;
    if (tls === undefined) {
      server.on('connection', (socket: Socket) => {
        this.#track(this.#greet(socket, (connectionOptions) => accept(socket, connectionOptions)));
      });
      return;
    }
    const handshakes = new Handshakes({
      identity: tls.identity,
      timeoutMs: HELLO_TIMEOUT_MS,
      atMost: MAX_STRANGERS,
      onSecure: (socket) => {
        const distrusted = distrust(socket, tls.allowedNames);
        this.#track(this.#greet(socket, (connectionOptions) => secured(socket, connectionOptions), distrusted));
      },
      onPlain: (socket) => {
        const refused = 'the sender does not speak TLS; give both sides the same TLS options';
        this.#track(this.#greet(socket, (connectionOptions) => byDataEvents(socket, connectionOptions), refused));
      },
      onChannel: (socket, index, rest) => {
        const address = addressOf(socket);
        try {
          if (this.#channels === undefined) throw noSession();
          this.#channels({ index, fd: duplicateDescriptor(socket), rest, sent: undefined, address });
        } catch (error) {
          this.#turnedAway(address, BallastError.from(error));
        }
        socket.destroy();
      },
      onFailed: (socket, error) => {
        this.#turnedAway(addressOf(socket), error);
      },
    });
    server.on('connection', (socket: Socket) => {
      handshakes.take(socket);
    });
    this.#handshakes = handshakes;
  }

  /** @throws BallastError LISTEN when the address cannot be had */
  static async open(options: ListenerOptions): Promise<Listener> {
    const { address } = options;
    // Paused until its reads are set up; see `accept`.
    const server = createServer({ pauseOnConnect: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: Error) => {
        reject(listenFailed(address, error));
      });
      server.listen({ host: address.host, port: address.port, exclusive: true }, resolve);
    });
    server.removeAllListeners('error');
    server.on('error', (error: Error) => {
      options.onStranger(listenFailed(address, error));
    });
    return new Listener(server, options);
  }

  /** Whom it lets in; undefined for plain TCP. */
  get tls(): ListenerTls | undefined {
    return this.#options.tls;
  }

  /** The address that was bound: the real port where any was asked for. */
  get address(): Address {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') return this.#options.address;
    return { host: bound.address, port: bound.port };
  }

  /**
   * The next sender that says a proper hello; the one before is served no longer.
   * @param patienceMs how long to wait; undefined for ever
   * @returns undefined when nobody came in time
   * @throws BallastError ABORTED by the signal
   */
  async nextCaller(signal: AbortSignal | undefined, patienceMs?: number): Promise<Caller | undefined> {
    this.#current = undefined;
    const returned = this.#returned;
    this.#returned = undefined;
    if (returned !== undefined) {
      this.#current = returned;
      return returned;
    }
    this.#lookForDescriptor();
    const look = setInterval(() => {
      this.#lookForDescriptor();
    }, DESCRIPTOR_LOOK_MS);
    return await new Promise<Caller | undefined>((resolve, reject) => {
      const settle = (then: () => void): void => {
        this.#waiting = undefined;
        clearTimeout(timer);
        clearInterval(look);
        signal?.removeEventListener('abort', onAbort);
        then();
      };
      const onAbort = (): void => {
        settle(() => {
          reject(new BallastError(ErrorCode.ABORTED, 'interrupted while waiting for a sender'));
        });
      };
      const timer =
        patienceMs === undefined
          ? undefined
          : setTimeout(() => {
              settle(() => {
                resolve(undefined);
              });
            }, patienceMs);
      this.#waiting = (caller) => {
        this.#current = caller;
        settle(() => {
          resolve(caller);
        });
      };
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Says where connections go from now on that want to become a channel; undefined to turn them away. */
  routeChannels(take: ((connection: ChannelConnection) => void) | undefined): void {
    this.#channels = take;
  }

  /** Stops listening and ends every connection that has not become a caller. */
  async close(): Promise<void> {
    this.#server.close();
    this.#handshakes?.close();
    const reason = new BallastError(ErrorCode.ABORTED, 'the receiver ends');
    if (this.#returned !== undefined) this.#track(this.#returned.connection.abort(reason));
    await Promise.all([...this.#strangers].map((connection) => connection.abort(reason)));
    await Promise.all(this.#closing);
  }

  /** @param distrusted why the other side is not let in, if it is not */
  async #greet(socket: Socket, start: (options: ConnectionOptions) => Connection, distrusted?: string): Promise<void> {
    const address = addressOf(socket);
    const connection = start({
      timeoutMs: this.#options.timeoutMs,
      peer: `the sender at ${address}`,
      isStranger: true,
    });
    this.#strangers.add(connection);
    this.#dropOldest();
    const timer = setTimeout(() => {
      connection.fail(
        new BallastError(ErrorCode.TIMEOUT, `it connected and said nothing for ${HELLO_TIMEOUT_MS / 1000} s`),
      );
    }, HELLO_TIMEOUT_MS);
    try {
      if (distrusted !== undefined) throw new BallastError(ErrorCode.TLS, distrusted);
      const opening = await connection.opening();
      if (opening.kind === 'channel') {
        if (this.#channels === undefined) throw noSession();
        this.#channels({ index: opening.index, ...connection.handOver(), address });
        return;
      }
      const first = await connection.expect('hello', 'measure', 'probe');
      if (first.kind === 'probe') {
        clearTimeout(timer);
        await this.#probe(connection);
        return;
      }
      const measurement = first.kind === 'measure' ? measureConnection(connection) : undefined;
      const hello = first.kind === 'hello' ? first : await connection.expect('hello');
      this.#introduce({ connection, hello, address, measurement });
    } catch (error) {
      const reason = BallastError.from(error);
      this.#turnedAway(address, reason);
      await connection.abort(reason);
    } finally {
      clearTimeout(timer);
      this.#strangers.delete(connection);
    }
  }

  /**
   * A sender whose connection broke may be back before this side has noticed: the session's token, which nobody else
   * knows, lets the new connection take the place of the old one.
   */
  #introduce(caller: Caller): void {
    if (this.#waiting !== undefined) {
      // Memory comes first.
      this.#probing?.fail(busy());
      this.#waiting(caller);
      return;
    }
    const isSameSession =
      this.#current !== undefined && Buffer.compare(this.#current.hello.session, caller.hello.session) === 0;
    if (!isSameSession) throw busy();
    const replaced = new BallastError(ErrorCode.CONNECTION_LOST, 'the sender has made a new connection');
    // Nobody else has it: whoever is served is ended by its session.
    if (this.#returned !== undefined) this.#track(this.#returned.connection.abort(replaced));
    this.#returned = caller;
    this.#current?.connection.fail(replaced);
  }

  async #probe(connection: Connection): Promise<void> {
    if (this.#waiting === undefined || this.#probing !== undefined) throw busy();
    this.#probing = connection;
    try {
      await serveProbe(connection);
    } finally {
      this.#probing = undefined;
    }
  }

  /** A connection that finds no descriptor is closed below Node.js, which says nothing of it to anyone. */
  #lookForDescriptor(): void {
    if (this.#toldOfDescriptors) return;
    try {
      closeSync(openSync('/dev/null', 'r'));
    } catch (error) {
      const code = systemCode(error);
      if (code !== 'EMFILE' && code !== 'ENFILE') return;
      this.#toldOfDescriptors = true;
      const { message } = outOfDescriptors(code, error);
      this.#options.onStranger(new BallastError(ErrorCode.BUSY, `nobody can connect: ${message}`, { cause: error }));
    }
  }

  #dropOldest(): void {
    if (this.#strangers.size <= MAX_STRANGERS) return;
    for (const oldest of this.#strangers) {
      this.#strangers.delete(oldest);
      oldest.fail(new BallastError(ErrorCode.BUSY, 'too many connections that say nothing'));
      return;
    }
  }

  #turnedAway(address: string, reason: BallastError): void {
    const message = `turned away a connection from ${address}: ${reason.message}`;
    this.#options.onStranger(new BallastError(reason.code, message, { cause: reason }));
  }

  #track(work: Promise<void>): void {
    const done: Promise<void> = work.finally(() => this.#closing.delete(done));
    this.#closing.add(done);
  }
}

function noSession(): BallastError {
  return new BallastError(ErrorCode.BUSY, 'it wants to become a channel, and there is no session that waits for one');
}

function measureConnection(connection: Connection): SideMeasurement {
  const measurement = new SideMeasurement();
  measurement.stopwatch.switchTo(Cause.agree);
  connection.stopwatch = measurement.stopwatch;
  return measurement;
}

function busy(): BallastError {
  return new BallastError(ErrorCode.BUSY, 'this receiver is busy with another sender; try again later');
}

function addressOf(socket: Socket): string {
  return formatAddress({ host: socket.remoteAddress ?? 'unknown', port: socket.remotePort ?? 0 });
}

function listenFailed(address: Address, error: Error): BallastError {
  const name = formatAddress(address);
  const options = { cause: error };
  switch (systemCode(error)) {
    case 'EADDRINUSE':
      return new BallastError(
        ErrorCode.LISTEN,
        `${name} is in use by another program; choose another port with --listen, or 0 for any`,
        options,
      );
    case 'EACCES':
      return new BallastError(
        ErrorCode.LISTEN,
        `this user may not listen at ${name}; choose a port above 1023`,
        options,
      );
    case 'EADDRNOTAVAIL':
      return new BallastError(
        ErrorCode.LISTEN,
        `${address.host} is no address of this machine; choose one that is`,
        options,
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new BallastError(
        ErrorCode.LISTEN,
        `the host name in ${name} is not known here; give an IP address`,
        options,
      );
    default:
      return new BallastError(
        ErrorCode.LISTEN,
        `cannot listen at ${name} (${systemCode(error) ?? error.message})`,
        options,
      );
  }
}

/**
 * Refuses to listen where anyone can connect and nobody is authenticated.
 * @param isAuthenticated whether TLS is on, or the user takes the risk
 * @throws BallastError USAGE
 */
export function checkExposure(address: Address, isAuthenticated: boolean): void {
  if (isAuthenticated || isLoopback(address.host)) return;
  throw new BallastError(
    ErrorCode.USAGE,
    `${formatAddress(address)} can be reached from other machines, and nothing authenticates them; give certificates with --tls-dir, listen on 127.0.0.1, or say --insecure if the network is trusted`,
  );
}
