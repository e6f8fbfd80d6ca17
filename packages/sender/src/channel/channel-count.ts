import { availableParallelism } from 'node:os';
import type { RegionPlan } from '../strategy.js';

/** More of them than this have not been seen to help. */
const MOST_CHANNELS = 8;
/** Bytes to scan for each channel: for less, a thread takes longer to start than it saves. */
const BYTES_PER_CHANNEL = 128 << 20;
/** Bytes a second that one thread reads, hashes and sends, and so what a cap leaves nothing to gain below. */
const BYTES_PER_SECOND = 1e9;

export interface ChannelNeeds {
  readonly plans: readonly RegionPlan[];
  /** Whether the receiver runs on this machine, too. */
  readonly sharesCores: boolean;
  /** Bytes a second that are sent at most; Infinity for no cap. */
  readonly bandwidth: number;
}

/**
 * How many channels to ask the receiver for; 0 where the session's own connection is to carry the pages.
 * @param wanted what the user said; undefined to choose by the cores that this side has, the memory and the cap
 */
export function channelsFor(wanted: number | undefined, { plans, sharesCores, bandwidth }: ChannelNeeds): number {
  const bytes = plans.reduce((sum, { scan }) => sum + scan.bytes, 0);
  const cores = Math.floor(availableParallelism() / (sharesCores ? 2 : 1));
  const useful = Math.min(
    cores,
    MOST_CHANNELS,
    Math.floor(bytes / BYTES_PER_CHANNEL),
    Math.ceil(bandwidth / BYTES_PER_SECOND),
  );
  const channels = wanted ?? useful;
  return channels > 1 ? channels : 0;
}
