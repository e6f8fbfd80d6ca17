/**
 * What a thread of either side can be doing while memory is moved. Numbers are places in an account and never leave the
 * process; the names do, in events and in the protocol.
 */
export const Cause = {
  /** Anything that has no name: what remains unexplained. */
  other: 0,
  /** Connecting, greeting, comparing the roots, publishing: what is done once, whatever the memory holds. */
  agree: 1,
  /** Asking the balloon map which pages hold nothing. */
  askMap: 2,
  /** Reading pages from the memory file. */
  read: 3,
  /** Looking for zeros in what was read. */
  scan: 4,
  /** Telling, or taking in, that single pages or runs of them were found to be zero, or whiteouts for ballooned ones. */
  announce: 5,
  /** Telling, or taking in, the balloon map as such. */
  sendMap: 6,
  hash: 7,
  /** Compressing or expanding pages. */
  compress: 8,
  /** Moving page bytes in memory, into the kernel or out of it. */
  data: 9,
  /** Writing pages to the destination, and reading them back. */
  store: 10,
  /** Nothing to do: the link, or the other side, is not ready. */
  wait: 11,
} as const;
export type Cause = (typeof Cause)[keyof typeof Cause];
export type CauseName = keyof typeof Cause;

/** By number. */
export const CAUSE_NAMES = Object.keys(Cause) as readonly CauseName[];
