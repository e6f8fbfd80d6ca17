import type ora from 'ora';
import type { Ora } from 'ora';
import { progressDisplay, progressLine, type ProgressView } from './progress-text.js';
import { RateWindow } from './rate.js';
import type { Sink } from './sink.js';
import { terminalStyle } from './terminal.js';
import { printable } from './terminal-text.js';

/** Where progress is shown. */
export interface ProgressDisplay {
  show(view: ProgressView): void;
  /** Takes the display away, so that lines can follow; the next `show` brings it back. */
  clear(): void;
}

/** Columns that the spinner and its gap take, and what stays free for the ^C that a terminal echoes: it must not wrap. */
const SPINNER_COLUMNS = 5;
/** Seconds between two lines of a log. */
const LINE_INTERVAL_SECONDS = 5;
const MOST_PHASE = 40;

/** Progress with its rate: a new phase or round starts counting anew. */
class Meter {
  #rate = new RateWindow();
  #stage: string | undefined;

  /** Returns whether the view begins a new phase or round. */
  take(view: ProgressView, seconds: number): boolean {
    const stage = `${view.phase} ${view.round ?? ''}`;
    const isNew = stage !== this.#stage;
    if (isNew) this.#rate.reset();
    this.#stage = stage;
    this.#rate.add(seconds, view.doneBytes);
    return isNew;
  }

  get bytesPerSecond(): number | undefined {
    return this.#rate.perSecond;
  }
}

/** A phase may be the peer's word. */
function withSafePhase(view: ProgressView): ProgressView {
  return { ...view, phase: printable(view.phase, MOST_PHASE) };
}

function now(): number {
  return performance.now() / 1000;
}

type SpinnerFactory = typeof ora;

/** One line with a spinner, rewritten in place. */
export function spinnerDisplay(sink: Sink): ProgressDisplay {
  const meter = new Meter();
  let makeSpinner: SpinnerFactory | undefined;
  let spinner: Ora | undefined;
  // Loaded only where it is seen, and beside the work: it would be the slowest part of starting up.
  import('ora').then(
    (module) => (makeSpinner = module.default),
    () => undefined,
  );
  return {
    show(view) {
      meter.take(view, now());
      if (makeSpinner === undefined) return;
      const style = terminalStyle(sink.stream);
      const columns = style.columns - SPINNER_COLUMNS;
      const text = progressDisplay(withSafePhase(view), meter.bytesPerSecond, { ...style, columns });
      spinner ??= makeSpinner({
        stream: sink.stream,
        isEnabled: true,
        color: style.colour ? 'cyan' : false,
        // Discarding stdin means raw mode: then a killed program leaves the terminal unusable, and ^Z and ^\ are dead.
        discardStdin: false,
        ...(style.unicode ? {} : { spinner: 'line' as const }),
      });
      spinner.text = text;
      if (!spinner.isSpinning) spinner.start();
    },
    clear() {
      spinner?.stop();
    },
  };
}

/** Lines for a log: one where a phase or round begins, and one each five seconds. */
export function lineDisplay(sink: Sink, clock: () => number = now): ProgressDisplay {
  const meter = new Meter();
  let lastLine = -Infinity;
  return {
    show(view) {
      const seconds = clock();
      const isNew = meter.take(view, seconds);
      if (!isNew && seconds - lastLine < LINE_INTERVAL_SECONDS) return;
      lastLine = seconds;
      sink.write(`${progressLine(withSafePhase(view), meter.bytesPerSecond)}\n`);
    },
    clear() {
      // Lines stay where they are.
    },
  };
}
