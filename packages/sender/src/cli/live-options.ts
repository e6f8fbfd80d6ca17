import { BallastError, ErrorCode } from '@ballast/shared/errors';
import type { NoConvergenceAction, SourceAfter } from '../live/choices.js';

/** The options of `ballast-send` that only make sense with --qmp. */
export interface LiveCliOptions {
  readonly qmp?: string;
  readonly downtimeLimit?: number;
  readonly maxRounds?: number;
  readonly onNoConvergence?: NoConvergenceAction;
  readonly sourceAfter?: SourceAfter;
  readonly dryRun?: boolean;
  readonly record?: string;
}

const LIVE_ONLY = ['downtimeLimit', 'maxRounds', 'onNoConvergence', 'sourceAfter', 'dryRun', 'record'] as const;

/** @throws BallastError USAGE for options that speak of a live move where there is none */
export function refuseLiveOptions(options: LiveCliOptions): void {
  const stray = LIVE_ONLY.find((name) => options[name] !== undefined);
  if (stray === undefined) return;
  const option = stray.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new BallastError(ErrorCode.USAGE, `--${option} speaks of a running guest; name its monitor with --qmp`);
}
