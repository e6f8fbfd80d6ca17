import { receiveMemory, type ReceiveEvent, type ReceiveOptions, type TransferResult } from '@ballast/receiver';
import { sendMemory, type SendOptions } from '@ballast/sender';
import { BallastError, type ErrorCode } from '@ballast/shared/errors';
import type { Address } from '@ballast/shared/transport';
import type { ExecutionContext } from 'ava';

const ANY_PORT: Address = { host: '127.0.0.1', port: 0 };

/** Milliseconds after its sender's end that a receiver may need, with whom nobody may ever have spoken. */
const PATIENCE_MS = 60_000;

/** A receiver that listens. */
export interface Waiting {
  readonly address: Address;
  /** How its transfer ends. A failure that nobody awaits is not an unhandled one. */
  readonly result: Promise<TransferResult>;
}

/** Starts a receiver on a free port of loopback, and returns once it listens. It ends with the test at the latest. */
export async function listen(t: ExecutionContext, options: ReceiveOptions): Promise<Waiting> {
  const over = new AbortController();
  const waiting = await listenUntil(over.signal, options);
  t.teardown(async () => {
    over.abort();
    await waiting.result.catch(() => undefined);
  });
  return waiting;
}

async function listenUntil(over: AbortSignal, options: ReceiveOptions): Promise<Waiting> {
  const signal = AbortSignal.any([over, ...(options.signal === undefined ? [] : [options.signal])]);
  return await new Promise<Waiting>((resolve, reject) => {
    const onEvent = (event: ReceiveEvent): void => {
      options.onEvent?.(event);
      if (event.event === 'listening') resolve({ address: { host: event.host, port: event.port }, result });
    };
    const result = receiveMemory({ listen: ANY_PORT, ...options, onEvent, signal });
    result.catch(reject);
  });
}

export interface Sides {
  readonly from: readonly string[];
  readonly to: readonly string[];
  readonly send?: Partial<SendOptions>;
  readonly receive?: Partial<ReceiveOptions>;
  /** Puts something between the two: gets the receiver's address and returns the one that the sender is given. */
  readonly via?: (receiver: Address) => Promise<Address>;
}

/** Results of both sides, or their errors. */
export interface Ended {
  readonly sent: TransferResult | BallastError;
  readonly received: TransferResult | BallastError;
}

/** Moves memory files over loopback and tells how both sides ended. An error that is none of ours is thrown. */
export async function attempt({ from, to, send, receive, via }: Sides): Promise<Ended> {
  const over = new AbortController();
  const receiver = await listenUntil(over.signal, { files: to, ...receive });
  let patience: NodeJS.Timeout | undefined;
  try {
    const address = via === undefined ? receiver.address : await via(receiver.address);
    const sent = await orBallastError(sendMemory({ files: from, to: address, ...send }));
    patience = setTimeout(() => {
      over.abort();
    }, PATIENCE_MS);
    return { sent, received: await orBallastError(receiver.result) };
  } finally {
    clearTimeout(patience);
    over.abort();
  }
}

/** Moves memory files over loopback, and throws what went wrong. */
export async function transfer(sides: Sides): Promise<{ sent: TransferResult; received: TransferResult }> {
  const { sent, received } = await attempt(sides);
  if (sent instanceof Error) throw sent;
  if (received instanceof Error) throw received;
  return { sent, received };
}

export async function orBallastError(result: Promise<TransferResult>): Promise<TransferResult | BallastError> {
  try {
    return await result;
  } catch (error) {
    if (error instanceof BallastError) return error;
    throw error;
  }
}

/** The code of a failure; undefined for a success. */
export function codeOf(ended: TransferResult | BallastError): ErrorCode | undefined {
  return ended instanceof BallastError ? ended.code : undefined;
}

export function messageOf(ended: TransferResult | BallastError): string {
  return ended instanceof BallastError ? ended.message : `a success with root ${ended.root}`;
}
