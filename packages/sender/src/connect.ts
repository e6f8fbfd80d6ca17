import { BallastError, ErrorCode, outOfDescriptors, systemCode } from '@ballast/shared/errors';
import {
  ADDRESS_MS,
  dial,
  explainHandshake,
  formatAddress,
  type Address,
  type Connection,
  type TlsDialOptions,
} from '@ballast/shared/transport';

export interface ConnectOptions {
  /** Milliseconds to wait for the connection. */
  readonly connectMs: number;
  /** Milliseconds to wait later for any word of the peer. */
  readonly timeoutMs: number;
  readonly tls: TlsDialOptions | undefined;
  readonly signal: AbortSignal | undefined;
  /** Which channel it is to be of a session that was begun before. Default: it begins one. */
  readonly channel?: number;
}

/**
 * Connects to a receiver.
 * @throws BallastError CONNECT when nobody can be reached, TLS when it is not whom we trust, ABORTED
 */
export async function connectToReceiver(
  address: Address,
  { connectMs, timeoutMs, tls, signal, channel }: ConnectOptions,
): Promise<Connection> {
  const name = formatAddress(address);
  const { socket, ready, start, distrust } = dial({
    ...address,
    tls,
    channel,
    addressMs: Math.min(ADDRESS_MS, Math.ceil(connectMs / 2)),
  });
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        const message = `nobody answered at ${name} within ${connectMs / 1000} s; check the address, the route and the firewall`;
        settle(() => {
          reject(new BallastError(ErrorCode.CONNECT, message));
        });
      }, connectMs);
      const settle = (then: () => void): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        then();
      };
      const onError = (error: Error): void => {
        settle(() => {
          reject(connectFailed(name, error));
        });
      };
      const onAbort = (): void => {
        settle(() => {
          reject(aborted());
        });
      };
      // Stays: of the failure of the plain socket below, a TLS socket tells twice.
      socket.on('error', onError);
      socket.once(ready, () => {
        settle(resolve);
      });
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
    });
  } catch (error) {
    socket.destroy();
    throw error;
  }
  const connection = start({ timeoutMs, peer: `the receiver at ${name}` });
  const reason = distrust();
  if (reason === undefined) return connection;
  const distrusted = new BallastError(
    ErrorCode.TLS,
    `the certificate of the receiver at ${name} ${reason}; nothing was sent`,
  );
  await connection.abort(distrusted);
  throw distrusted;
}

export function aborted(): BallastError {
  return new BallastError(ErrorCode.ABORTED, 'the transfer was interrupted before it was complete');
}

function connectFailed(name: string, error: Error): BallastError {
  const code = systemCode(error);
  const options = { cause: error };
  const handshake = explainHandshake(error);
  if (handshake !== undefined)
    return new BallastError(ErrorCode.TLS, `no TLS connection to ${name}: ${handshake}`, options);
  switch (code) {
    case 'EMFILE':
    case 'ENFILE':
      return outOfDescriptors(code, error);
    case 'ECONNREFUSED':
      return new BallastError(
        ErrorCode.CONNECT,
        `nobody listens at ${name}; start ballast-receive there, or check the port`,
        options,
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new BallastError(
        ErrorCode.CONNECT,
        `the host name in ${name} is not known here; check its spelling or give an IP address`,
        options,
      );
    default:
      return new BallastError(
        ErrorCode.CONNECT,
        `${name} cannot be reached (${code ?? error.message}); check the address, the route and the firewall`,
        options,
      );
  }
}
