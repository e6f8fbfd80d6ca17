import type { ActionContext, CommonOptions } from '@ballast/shared/cli';
import type { BalloonOrigin } from '../balloon/balloon-map.js';
import type { ReadMethod } from '../source/memory-source.js';
import { digestMemory } from '../survey.js';

interface DigestCliOptions extends CommonOptions {
  readonly balloon?: readonly BalloonOrigin[];
  readonly read?: ReadMethod;
}

/** `ballast-send digest FILE…` */
export async function runDigest(
  { balloon, read }: DigestCliOptions,
  { args: files, output, signal }: ActionContext,
): Promise<void> {
  const digest = await digestMemory({ files, signal, ...(read && { read }), ...(balloon && { balloon }) });
  output.event({ event: 'digest', ...digest });
  output.print(digest.root);
}
