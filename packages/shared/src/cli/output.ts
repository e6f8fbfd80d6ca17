import type { BallastError } from '../errors.js';
import { errorTrace } from './error-trace.js';
import { jsonLine, type OutputEvent } from './json-line.js';
import { lineDisplay, spinnerDisplay, type ProgressDisplay } from './progress-display.js';
import type { ProgressView } from './progress-text.js';
import { Sink, type TextStream } from './sink.js';
import { isInteractive, paint, terminalStyle, type TextStyle } from './terminal.js';
import { printable } from './terminal-text.js';

export interface OutputOptions {
  /** How errors begin: "ballast-send". */
  readonly program: string;
  /** Events on stdout, one JSON object a line, and nothing else there. */
  readonly json: boolean;
  /** Nothing on stderr but errors. */
  readonly quiet: boolean;
  /** Errors come with stack and causes. */
  readonly debug: boolean;
  readonly stdout: TextStream;
  readonly stderr: TextStream;
}

/**
 * What a program tells, and where:
 *
 *              | stdout          | stderr, a terminal  | stderr, a file or pipe
 *     ---------+-----------------+---------------------+------------------------------
 *     (plain)  | what was asked  | spinner, notes …    | a line each 5 s, notes …
 *     --json   | events          | (1)                 | warnings, errors
 *     --quiet  | as without it   | errors              | errors
 *
 * (1) as without --json while stdout is not a terminal as well; else warnings and errors only, since a spinner would
 * write across the events.
 *
 * Text is made safe for a terminal on its way, but for `print`, which may draw.
 */
export interface Output {
  /** An event for a program that reads along; nothing without --json. */
  event(event: OutputEvent): void;
  /** How far the work is, for a person. The JSON event is the caller's to send. */
  progress(view: ProgressView): void;
  /** Something worth knowing, in one line or several. */
  note(text: string): void;
  /** Something that should not be and does not end the work, in one line. */
  warn(line: string): void;
  /** The work is done: what to say about it, a line each. */
  done(lines: readonly string[]): void;
  /** What was asked for, such as a picture or a digest: on stdout, --quiet or not. With --json an event says it instead. */
  print(text: string): void;
  /** Why something failed, on stderr and with --json as the event `error`, too. */
  error(error: BallastError): void;
  /** What `print` may draw with. */
  readonly style: TextStyle;
  /** Why what was told did not reach its reader, unless the reader left on its own. */
  readonly failure: BallastError | undefined;
  /** Takes the spinner away and gives the cursor back. */
  close(): void;
  /** Resolves when all that was told has left the process. Await it before the process ends. */
  flush(): Promise<void>;
}

/** Bytes that a reader of events may lag behind before events `progress` are left out; others never are. */
const MOST_BACKLOG = 1 << 20;
/** Characters of one line. Long enough for two paths of the longest kind in a sentence. */
const MOST_LINE = 10_000;

const NO_DISPLAY: ProgressDisplay = {
  show() {
    // Nobody watches.
  },
  clear() {
    // Nothing was shown.
  },
};

/** See Output for what goes where. */
export function createOutput(options: OutputOptions): Output {
  return new ProgramOutput(options);
}

class ProgramOutput implements Output {
  readonly #options: OutputOptions;
  readonly #stdout: Sink;
  readonly #stderr: Sink;
  readonly #display: ProgressDisplay;
  /** Whether a person follows on stderr. */
  readonly #talks: boolean;

  constructor(options: OutputOptions) {
    const { json, quiet, stdout, stderr } = options;
    this.#options = options;
    this.#stdout = Sink.of(stdout);
    this.#stderr = Sink.of(stderr);
    const watched = isInteractive(stderr);
    this.#talks = !quiet && (!json || (watched && stdout.isTTY !== true));
    if (!this.#talks) this.#display = NO_DISPLAY;
    else this.#display = watched ? spinnerDisplay(this.#stderr) : lineDisplay(this.#stderr);
  }

  get style(): TextStyle {
    return terminalStyle(this.#options.stdout);
  }

  get failure(): BallastError | undefined {
    return this.#stdout.failure;
  }

  event(event: OutputEvent): void {
    if (!this.#options.json) return;
    if (event.event === 'progress' && this.#stdout.backlog > MOST_BACKLOG) return;
    this.#stdout.write(jsonLine(event));
  }

  progress(view: ProgressView): void {
    this.#display.show(view);
  }

  note(text: string): void {
    if (!this.#talks) return;
    for (const line of text.split('\n')) this.#say(line);
  }

  warn(line: string): void {
    if (!this.#options.quiet) this.#say(line, this.#paint('warning: ', 'yellow'));
  }

  done(lines: readonly string[]): void {
    this.#display.clear();
    if (!this.#talks) return;
    const { stderr } = this.#options;
    // The tick stands where the spinner stood; in a log it would only be in the way of grep.
    const watched = isInteractive(stderr);
    const tick = this.#paint(terminalStyle(stderr).unicode ? '✔ ' : '* ', 'green');
    for (const [index, line] of lines.entries()) this.#say(line, watched ? (index === 0 ? tick : '  ') : '');
  }

  print(text: string): void {
    if (this.#options.json) return;
    // stdout may be the terminal that the spinner is on.
    this.#display.clear();
    this.#stdout.write(text.endsWith('\n') ? text : `${text}\n`);
  }

  error(error: BallastError): void {
    this.#display.clear();
    const { program, debug } = this.#options;
    const { code, message } = error;
    const trace = debug ? errorTrace(error) : [];
    this.event({ event: 'error', code, message, ...(debug ? { trace } : {}) });
    this.#say(message, this.#paint(`${program}: `, 'red'));
    for (const line of trace) this.#say(line);
  }

  close(): void {
    this.#display.clear();
  }

  async flush(): Promise<void> {
    await Promise.all([this.#stdout.flush(), this.#stderr.flush()]);
  }

  /** A line on stderr, above the spinner if there is one. `mark` is our own and may be coloured. */
  #say(line: string, mark = ''): void {
    this.#stderr.write(`${mark}${printable(line, MOST_LINE)}\n`);
  }

  #paint(text: string, colour: 'yellow' | 'green' | 'red'): string {
    return paint(text, colour, terminalStyle(this.#options.stderr).colour);
  }
}
