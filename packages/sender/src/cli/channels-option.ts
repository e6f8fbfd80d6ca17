import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { MAX_CHANNELS } from '@ballast/shared/protocol';

/** A number, or the sender's own choice. commander makes an empty text of an option that is parsed to undefined. */
export type ChannelsChoice = number | 'auto';

/** @throws BallastError USAGE */
export function parseChannels(text: string): ChannelsChoice {
  if (text === 'auto') return text;
  const channels = Number(text);
  if (/^[0-9]{1,2}$/.test(text) && channels >= 1 && channels <= MAX_CHANNELS) return channels;
  throw new BallastError(ErrorCode.USAGE, `'${text}' is no number of channels; expected auto, or 1 to ${MAX_CHANNELS}`);
}
