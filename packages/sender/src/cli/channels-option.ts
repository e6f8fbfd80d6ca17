import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { MAX_CHANNELS } from '@ballast/shared/protocol';

/** @returns undefined for auto */
export function parseChannels(text: string): number | undefined {
  if (text === 'auto') return undefined;
  const channels = Number(text);
  if (/^[0-9]{1,2}$/.test(text) && channels >= 1 && channels <= MAX_CHANNELS) return channels;
  throw new BallastError(ErrorCode.USAGE, `'${text}' is no number of channels; expected auto, or 1 to ${MAX_CHANNELS}`);
}
