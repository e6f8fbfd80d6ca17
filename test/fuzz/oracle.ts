import { BallastError, ErrorCode, isErrorCode } from '@ballast/shared/errors';

/** Something that must never happen, happened. */
export class Finding extends Error {
  override readonly name = 'Finding';
}

/** Errors that nobody awaited, from the whole process. */
export class Watch {
  readonly #escaped: unknown[] = [];
  readonly #keep = (error: unknown): void => {
    this.#escaped.push(error);
  };

  constructor() {
    process.on('unhandledRejection', this.#keep);
    process.on('uncaughtException', this.#keep);
  }

  /** @throws Finding when an error escaped since the watch began */
  check(): void {
    const [error] = this.#escaped;
    if (error !== undefined) throw new Finding('an error escaped that nobody awaited', { cause: error });
  }

  end(): void {
    process.off('unhandledRejection', this.#keep);
    process.off('uncaughtException', this.#keep);
  }
}

/**
 * Checks that an error is one that the documentation knows.
 * @throws Finding
 */
export function checkError(error: unknown): BallastError {
  if (!(error instanceof BallastError)) throw new Finding('an error is no BallastError', { cause: error });
  if (!isErrorCode(error.code)) throw new Finding(`a code is not documented: ${String(error.code)}`, { cause: error });
  // What the peer itself says is passed on with its code.
  if (error.code === ErrorCode.INTERNAL && !error.message.includes(' says: '))
    throw new Finding(`a peer reached a defect: ${error.message}`, { cause: error });
  return error;
}

/**
 * Waits for something that has to end.
 * @throws Finding when it does not within `limitMs`; what it throws itself otherwise
 */
export async function within<T>(limitMs: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Finding(`${what} did not end within ${limitMs} ms`));
    }, limitMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
