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
    let data = seekData(fd, 0) ?? bytes;
    holes.add(0, Math.min(data, bytes));
    for (let isPage = false; data < bytes;) {
      const pageEnd = (Math.floor(data / PAGE_SIZE) + 1) * PAGE_SIZE;
      // After a single page of data another one is likely, and that is one call instead of two.
      let next = isPage && pageEnd < bytes ? (seekData(fd, pageEnd) ?? bytes) : pageEnd;
      let hole = pageEnd;
      if (next <= pageEnd) {
        hole = seekHole(fd, data) ?? bytes;
        next = hole < bytes ? (seekData(fd, hole) ?? bytes) : bytes;
      }
      isPage = hole <= pageEnd;
      holes.add(hole, Math.min(next, bytes));
      data = next;
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
