import type { RegionStore } from './region-store.js';

/** Where a whole transfer ends up: one store for each region, and what happens to them at the end. */
export interface Destination {
  readonly stores: readonly RegionStore[];
  /** Whether `read` of the stores gives back what was written. A sink keeps nothing, and what arrived is hashed instead. */
  readonly readsBack: boolean;
  /** Whether there is something from an earlier try in the stores: what of it is right need not be sent again. */
  readonly holds: boolean;
  /**
   * Makes what was written durable where that means anything.
   * @throws BallastError WRITE, NO_SPACE
   */
  sync(): Promise<void>;
  /**
   * Lets the world see it. Called once, after `sync`, when both roots are equal.
   * @throws BallastError EXISTS, WRITE; then nothing was published
   */
  publish(): Promise<void>;
  /**
   * Closes everything. What was not published stays out of the world's sight, or marked as unusable.
   * @returns what is left and what can be done with it, in words; undefined when nothing is
   */
  close(outcome: Outcome): string | undefined;
}

/** How a transfer ended, for what is left on disk. */
export const Outcome = {
  published: 'published',
  /** Another try may go on from here: what was written stays. */
  interrupted: 'interrupted',
  /** No other try can use it: what was written goes. */
  failed: 'failed',
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];
