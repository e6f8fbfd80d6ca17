import { BallastError, ErrorCode } from '../errors.js';

/** Signals that end the work in good order, with the exit status that a shell gives to each: 128 and its number. */
const STATUS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
type EndingSignal = keyof typeof STATUS;
const SIGNALS = Object.keys(STATUS) as readonly EndingSignal[];

/** Milliseconds that the work has to end itself after a defect was found, before the process ends under it. */
const CRASH_GRACE_MS = 10_000;

export interface InterruptionOptions {
  /** Told of the first signal, while the work winds up. */
  readonly onSignal: (signal: EndingSignal) => void;
  /** Ends the process at once, after it has given the terminal back: the second signal, or a defect beyond help. */
  readonly exit: (status: number, error?: BallastError) => void;
}

/**
 * What may end the work from outside: a signal, or an exception that nobody caught. Either aborts `signal`, so that the
 * work can put back what it changed; a second one ends the process at once.
 */
export class Interruption {
  readonly #controller = new AbortController();
  readonly #options: InterruptionOptions;
  readonly #handlers = new Map<EndingSignal, () => void>();
  #received: EndingSignal | undefined;
  #crash: BallastError | undefined;
  #grace: NodeJS.Timeout | undefined;

  /** Listens until `dispose`. */
  constructor(options: InterruptionOptions) {
    this.#options = options;
    for (const signal of SIGNALS) {
      const handler = (): void => {
        this.#onSignal(signal);
      };
      this.#handlers.set(signal, handler);
      process.on(signal, handler);
    }
    process.on('uncaughtException', this.#onCrash);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The exit status that the received signal asks for. */
  get status(): number | undefined {
    return this.#received === undefined ? undefined : STATUS[this.#received];
  }

  /** The exception that nobody caught. */
  get crash(): BallastError | undefined {
    return this.#crash;
  }

  dispose(): void {
    clearTimeout(this.#grace);
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
    process.off('uncaughtException', this.#onCrash);
  }

  #onSignal(signal: EndingSignal): void {
    if (this.#received !== undefined) {
      this.#options.exit(STATUS[signal]);
      return;
    }
    this.#received = signal;
    this.#options.onSignal(signal);
    this.#controller.abort(new BallastError(ErrorCode.ABORTED, `ended by ${signal} before the work was complete`));
  }

  /** An unhandled rejection arrives here, too. */
  readonly #onCrash = (thrown: unknown): void => {
    const error = BallastError.from(thrown);
    if (this.#crash !== undefined) {
      this.#options.exit(1, this.#crash);
      return;
    }
    this.#crash = error;
    // Not unref'd: work that waits for what the defect destroyed keeps nothing else alive.
    this.#grace = setTimeout(() => {
      this.#options.exit(1, error);
    }, CRASH_GRACE_MS);
    this.#controller.abort(error);
  };
}
