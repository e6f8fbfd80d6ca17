import { isIP } from 'node:net';
import { BallastError, ErrorCode } from '../errors.js';

/** Where to connect or listen. */
export interface Address {
  /** Name or IP address, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

export const DEFAULT_PORT = 7700;

/**
 * Reads "HOST:PORT", "HOST", "[IPv6]:PORT" or "[IPv6]"; the port is 7700 where none is given.
 * @param lowestPort 0 where "any free port" makes sense, 1 elsewhere
 * @throws BallastError USAGE
 */
export function parseAddress(text: string, lowestPort: 0 | 1): Address {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3] ?? DEFAULT_PORT);
  if (host === undefined || (match?.[1] !== undefined && isIP(host) !== 6) || /\s/.test(host)) {
    const hint = isIP(text) === 6 ? `; write an IPv6 address in brackets: [${text}]:${DEFAULT_PORT}` : '';
    throw new BallastError(
      ErrorCode.USAGE,
      `'${text}' is no address; expected HOST:PORT, such as host-b:${DEFAULT_PORT}${hint}`,
    );
  }
  if (port < lowestPort || port > 65535) {
    throw new BallastError(ErrorCode.USAGE, `'${text}' has port ${port}; expected ${lowestPort} to 65535`);
  }
  return { host, port };
}

/**
 * An address that a program made, which no parser has seen.
 * @throws BallastError USAGE
 */
export function checkAddress({ host, port }: Address, lowestPort: 0 | 1): void {
  if (Number.isInteger(port) && port >= lowestPort && port <= 65535) return;
  throw new BallastError(ErrorCode.USAGE, `${host} has port ${port}; expected ${lowestPort} to 65535`);
}

/** "HOST:PORT", with brackets around an IPv6 address. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether nothing but this machine can reach the address. Names other than localhost count as reachable. */
export function isLoopback(host: string): boolean {
  return (
    host === 'localhost' ||
    host === '::1' ||
    (isIP(host) === 4 && host.startsWith('127.')) ||
    /^::ffff:127\./i.test(host)
  );
}
