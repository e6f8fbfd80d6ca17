import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { ExtentSet, PAGE_SIZE, seekData, seekHole } from '@ballast/shared/memory';

/**
 * The holes of a file as its filesystem reports them (SEEK_DATA, SEEK_HOLE), shrunk inward to whole pages. QEMU's
 * balloon punches them. A filesystem that does not know holes reports none.
 * @param bytes size of the file
 * @throws BallastError READ when the filesystem cannot be asked at all
 */
export function readHoles(fd: number, bytes: number, path: string): ExtentSet {
  const holes = ExtentSet.builder();
  try {
    let position = 0;
    while (position < bytes) {
      const data = seekData(fd, position) ?? bytes;
      if (data > position) holes.add(position, Math.min(data, bytes));
      if (data >= bytes) break;
      position = seekHole(fd, data) ?? bytes;
    }
  } catch (error) {
    throw new BallastError(
      ErrorCode.READ,
      `the filesystem of ${path} cannot be asked for holes (${systemCode(error) ?? 'unknown error'}); give a map with --balloon, or --balloon none`,
      { cause: error },
    );
  }
  return holes.build().alignInward(PAGE_SIZE);
}
