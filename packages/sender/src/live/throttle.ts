import { setTimeout as sleep } from 'node:timers/promises';
import { BallastError } from '@ballast/shared/errors';
import type { SourceGuest } from './source-guest.js';

/** Milliseconds of a stop and the run after it. */
const PERIOD_MS = 50;
/** Shares of its time that the guest stands still, one after the other. */
const STEPS = [0.3, 0.5, 0.7, 0.85, 0.95] as const;

/** Slows a guest down that writes memory too fast, by short stops. It runs when nothing is awaited. */
export class Throttle {
  readonly #guest: SourceGuest;
  #step = -1;
  #loop: Promise<void> | undefined;
  #ending = false;
  #failure: BallastError | undefined;

  constructor(guest: SourceGuest) {
    this.#guest = guest;
  }

  /** The share of its time that the guest stands still, 0 to 1. */
  get share(): number {
    return STEPS[this.#step] ?? 0;
  }

  /** Slows down more. @returns whether that was possible; @throws BallastError QMP of a stop before */
  increase(): boolean {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#step + 1 >= STEPS.length) return false;
    this.#step++;
    this.#loop ??= this.#run();
    return true;
  }

  /**
   * Ends, with the guest running, unless somebody else has paused it.
   * @throws BallastError QMP
   */
  async end(): Promise<void> {
    this.#ending = true;
    await this.#loop;
    this.#loop = undefined;
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #run(): Promise<void> {
    try {
      while (!this.#ending) {
        if (await this.#guest.pauseBriefly()) {
          await sleep(PERIOD_MS * this.share);
          await this.#guest.cont();
        }
        await sleep(PERIOD_MS * (1 - this.share));
      }
    } catch (error) {
      this.#failure = BallastError.from(error);
    }
  }
}
