import { setTimeout as sleep } from 'node:timers/promises';
import { Compression } from '@ballast/shared/compression';
import { BallastError } from '@ballast/shared/errors';
import { Dialect } from '@ballast/shared/protocol';
import type { Address, TlsDialOptions } from '@ballast/shared/transport';
import { connectToReceiver } from '../connect.js';

/** What the destination says of a guest whose move was committed. */
export const DestinationWord = {
  runsThere: 'runs there',
  neverRan: 'never ran there',
  /** It cannot be asked, or does not know this move. */
  unknown: 'unknown',
} as const;
export type DestinationWord = (typeof DestinationWord)[keyof typeof DestinationWord];

export interface Question {
  readonly to: Address;
  readonly tls: TlsDialOptions | undefined;
  /** The token of the move, which only its two sides know. */
  readonly session: Buffer;
  readonly regions: readonly number[];
  readonly timeoutMs: number;
  /** Milliseconds for which to try. */
  readonly patienceMs: number;
  /** Ends the question: then the answer is unknown. */
  readonly signal?: AbortSignal | undefined;
}

const PAUSE_MS = 250;
const CONNECT_MS = 4000;

/** Asks the receiver of a move what became of the guest. Never throws: no answer is unknown, too. */
export async function askDestination(question: Question): Promise<DestinationWord> {
  const deadline = performance.now() + question.patienceMs;
  for (;;) {
    const word = await askOnce(question).catch(() => DestinationWord.unknown);
    if (word !== DestinationWord.unknown || performance.now() + PAUSE_MS > deadline) return word;
    if (question.signal?.aborted === true) return word;
    await sleep(PAUSE_MS);
  }
}

async function askOnce({ to, tls, session, regions, timeoutMs, signal }: Question): Promise<DestinationWord> {
  const connectMs = Math.min(timeoutMs, CONNECT_MS);
  const connection = await connectToReceiver(to, { connectMs, timeoutMs, tls, signal });
  try {
    await connection.sendControl({
      kind: 'hello',
      session,
      regions: [...regions],
      dialect: Dialect.ranges,
      compress: Compression.none,
      dataBytesAtMost: 0,
      channels: 0,
      live: true,
    });
    const answer = await connection.expect('published-before', 'never-published');
    if (answer.kind === 'published-before') await connection.sendControl({ kind: 'goodbye' });
    await connection.close();
    return answer.kind === 'published-before' ? DestinationWord.runsThere : DestinationWord.neverRan;
  } catch (error) {
    // Somebody who says welcome knows nothing of this move.
    await connection.abort(BallastError.from(error));
    throw error;
  }
}
