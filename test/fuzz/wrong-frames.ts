import { rightMessage } from './decoder-part.js';
import type { Random } from './random.js';
import { controlFrame, mutateFrame, mutateMessage, type WireFrame } from './wire-frame.js';

/**
 * What a peer says in place of the frame that belongs here: nothing, that frame twice, another message before it, a damaged
 * one, or what else may go wrong where it stands.
 * @param message what the frame says, where it is a message
 */
export function wrongFrames(
  random: Random,
  right: WireFrame,
  message: Readonly<Record<string, unknown>> | undefined,
  others: readonly (() => WireFrame[])[],
): WireFrame[] {
  return random.pick<() => WireFrame[]>([
    () => [],
    () => [right, right],
    () => [controlFrame(rightMessage(random)), right],
    () => [message === undefined ? mutateFrame(random, right) : mutateMessage(random, message)],
    () => [mutateFrame(random, right)],
    ...others,
  ])();
}
