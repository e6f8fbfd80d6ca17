import { setTimeout as sleep } from 'node:timers/promises';
import { Compression } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
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
    const word = await askOnce(question).catch(wordOf);
    if (word !== undefined) return word;
    if (performance.now() + PAUSE_MS > deadline || question.signal?.aborted === true) return DestinationWord.unknown;
    await sleep(PAUSE_MS);
  }
}

/** @returns undefined where it may be another one when the question is asked again */
function wordOf(error: unknown): DestinationWord | undefined {
  return BallastError.from(error).code === ErrorCode.MISMATCH ? DestinationWord.unknown : undefined;
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
    const answer = await connection.expect('published-before', 'never-published', 'welcome');
    if (answer.kind === 'welcome') {
      // A receiver that waits for another move; it goes on waiting when nothing follows but this.
      const message = 'the sender asked what became of a move that is not known here';
      await connection.abort(new BallastError(ErrorCode.UNACKNOWLEDGED, message));
      return DestinationWord.unknown;
    }
    if (answer.kind === 'published-before') await connection.sendControl({ kind: 'goodbye' });
    await connection.close();
    return answer.kind === 'published-before' ? DestinationWord.runsThere : DestinationWord.neverRan;
  } catch (error) {
    await connection.abort(BallastError.from(error));
    throw error;
  }
}
