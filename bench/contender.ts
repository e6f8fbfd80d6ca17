import { watchBystanders } from './bystanders.js';

/** What one run gave. */
export interface Measurement {
  readonly seconds: number;
  /** Bytes on the wire, where they are known. */
  readonly wireBytes?: number | undefined;
  /** The most anonymous memory of each program, where it was watched. */
  readonly senderPeakBytes?: number | undefined;
  readonly receiverPeakBytes?: number | undefined;
  /** How much of the machine other programs took meanwhile, from 0 to 1. */
  readonly othersShare?: number | undefined;
  /** What the program says about itself, where it does. */
  readonly counters?: Readonly<Record<string, number>> | undefined;
}

/** One of those that are compared: a way to get memory from one place to another. */
export interface Contender {
  /** Short and unique in its group. */
  readonly name: string;
  /** What is run, for a reader who wants to run it by hand. */
  readonly what: string;
  /** Why it cannot be run here, in one line. */
  readonly missing?: string;
  /** Makes ready what the run needs and what is not to be measured. */
  prepare?(round: number): Promise<void>;
  run(): Promise<Measurement>;
  /** Fails unless the destination is what it should be. */
  verify?(): Promise<void>;
  cleanUp?(): Promise<void>;
}

/** Everything that was measured of one contender. */
export interface Row {
  readonly name: string;
  readonly what: string;
  readonly status: 'measured' | 'missing' | 'failed';
  readonly note?: string;
  /** One a round, the warm-up left out. */
  readonly runs: readonly Measurement[];
}

/** What is happening, for whoever watches. */
export type OnStep = (step: { round: number; rounds: number; name: string; seconds?: number; note?: string }) => void;

/**
 * Runs all contenders in turn, A B C A B C …, so that whatever else the machine does meets all of them alike.
 * The first round warms up: it is not counted, and in it each destination is verified.
 * One that fails is left out from then on; the others go on.
 */
export async function interleave(contenders: readonly Contender[], rounds: number, onStep: OnStep): Promise<Row[]> {
  const notes = new Map<string, { status: 'missing' | 'failed'; note: string }>();
  const runs = new Map(contenders.map(({ name }) => [name, [] as Measurement[]]));
  for (const { name, missing } of contenders) {
    if (missing !== undefined) notes.set(name, { status: 'missing', note: missing });
  }
  for (let round = 0; round <= rounds; round += 1) {
    for (const contender of contenders) {
      const { name } = contender;
      if (notes.has(name)) continue;
      onStep({ round, rounds, name });
      try {
        const measurement = await runOnce(contender, round);
        onStep({ round, rounds, name, seconds: measurement.seconds });
        if (round > 0) runs.get(name)?.push(measurement);
      } catch (error) {
        const note = error instanceof Error ? error.message : String(error);
        notes.set(name, { status: 'failed', note });
        onStep({ round, rounds, name, note });
      }
    }
  }
  return contenders.map(({ name, what }) => ({
    name,
    what,
    ...(notes.get(name) ?? { status: 'measured' as const }),
    runs: runs.get(name) ?? [],
  }));
}

async function runOnce(contender: Contender, round: number): Promise<Measurement> {
  try {
    await contender.prepare?.(round);
    const others = watchBystanders();
    const measurement = await contender.run();
    const othersShare = others();
    if (round === 0) await contender.verify?.();
    return { ...measurement, othersShare };
  } finally {
    await contender.cleanUp?.();
  }
}
