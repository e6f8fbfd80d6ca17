import { Compression, codecOf, isAvailable } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import type { ControlOf } from '@ballast/shared/protocol';
import { AutoCompression } from './auto-compression.js';
import { compressAll, type LeafCompression } from './leaf-compression.js';

/** What a user may say: a compression, or to leave it to the data and the link. */
export const CompressionChoice = { ...Compression, auto: 'auto' } as const;
export type CompressionChoice = (typeof CompressionChoice)[keyof typeof CompressionChoice];

/** What the sender says of compression in its hello. */
export type CompressionTerms = Pick<ControlOf<'hello'>, 'compress' | 'offers'>;

/**
 * What the receiver has to be able to restore, and what the sender would take besides. The automatic choice demands what
 * every Node.js has, and offers the rest of what this one has.
 */
export function compressionTerms(choice: CompressionChoice): CompressionTerms {
  if (choice !== CompressionChoice.auto) return { compress: choice };
  return { compress: Compression.lz4, ...(isAvailable(Compression.zstd) && { offers: [Compression.zstd] }) };
}

/**
 * What both sides agreed on, in the order in which leaf records count it.
 * @throws BallastError PROTOCOL when the receiver takes what it was not offered
 */
export function agreedCompressions(
  { compress, offers = [] }: CompressionTerms,
  { takes = [] }: Pick<ControlOf<'welcome'>, 'takes'>,
): Compression[] {
  const foreign = takes.find((name) => !offers.includes(name));
  if (foreign === undefined) return [compress, ...takes];
  throw new BallastError(ErrorCode.PROTOCOL, `the receiver takes ${foreign}, which it was not offered`);
}

/** @throws BallastError USAGE when this Node.js does not have it */
export function checkCompression(choice: CompressionChoice): void {
  if (isAvailable(compressionTerms(choice).compress)) return;
  throw new BallastError(
    ErrorCode.USAGE,
    `this Node.js (${process.version}) has no ${choice}; run 22.15 or newer on both hosts, or compress with lz4`,
  );
}

/**
 * For one connection; undefined for none.
 * @param agreed as `agreedCompressions` has it
 */
export function leafCompression(
  choice: CompressionChoice,
  agreed: readonly Compression[],
): LeafCompression | undefined {
  const codecs = agreed.map(codecOf).filter((codec) => codec !== undefined);
  const [first] = codecs;
  if (first === undefined) return undefined;
  return choice === CompressionChoice.auto ? new AutoCompression(codecs) : compressAll(first);
}
