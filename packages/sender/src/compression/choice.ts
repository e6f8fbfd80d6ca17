import { Compression, codecOf, isAvailable } from '@ballast/shared/compression';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { AutoCompression } from './auto-compression.js';
import { compressAll, type LeafCompression } from './leaf-compression.js';

/** What a user may say: a compression, or to leave it to the data and the link. */
export const CompressionChoice = { ...Compression, auto: 'auto' } as const;
export type CompressionChoice = (typeof CompressionChoice)[keyof typeof CompressionChoice];

/** What the receiver has to be able to restore. The automatic choice takes the fastest, which every Node.js has. */
export function compressionOf(choice: CompressionChoice): Compression {
  return choice === CompressionChoice.auto ? Compression.lz4 : choice;
}

/** @throws BallastError USAGE when this Node.js does not have it */
export function checkCompression(choice: CompressionChoice): void {
  if (isAvailable(compressionOf(choice))) return;
  throw new BallastError(
    ErrorCode.USAGE,
    `this Node.js (${process.version}) has no ${choice}; run 22.15 or newer on both hosts, or compress with lz4`,
  );
}

/** For one connection; undefined for none. */
export function leafCompression(choice: CompressionChoice): LeafCompression | undefined {
  const codec = codecOf(compressionOf(choice));
  if (codec === undefined) return undefined;
  return choice === CompressionChoice.auto ? new AutoCompression(codec) : compressAll(codec);
}
