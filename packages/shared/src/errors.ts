/**
 * Stable codes of every error that Ballast reports. They appear as `code` in the JSON event `error`, travel in the
 * protocol's `refuse` and `abort` messages, and never change their meaning. docs/errors.md has a line for each.
 */
export const ErrorCode = {
  /** The command line or the options of a library call contradict themselves. */
  USAGE: 'E_USAGE',
  /** A file that should be read does not exist. */
  NOT_FOUND: 'E_NOT_FOUND',
  /** A file is not a regular file, or has a size that memory cannot have. */
  BAD_FILE: 'E_BAD_FILE',
  /** The destination exists already. */
  EXISTS: 'E_EXISTS',
  /** Another receiver works on the same destination, or this process has no more of what it needs for now. */
  BUSY: 'E_BUSY',
  /** The operating system refused a read. */
  READ: 'E_READ',
  /** The operating system refused a write. */
  WRITE: 'E_WRITE',
  /** The destination's filesystem has, or had, no room. */
  NO_SPACE: 'E_NO_SPACE',
  /** A balloon map is malformed, contradicts itself or does not fit its memory file. */
  BALLOON_MAP: 'E_BALLOON_MAP',
  /** The source became shorter, or changed, while it was being sent. */
  SOURCE_CHANGED: 'E_SOURCE_CHANGED',
  /** Nobody listens at the address, or it cannot be reached. */
  CONNECT: 'E_CONNECT',
  /** The receiver cannot listen at the address. */
  LISTEN: 'E_LISTEN',
  /** The connection broke before the transfer was complete. */
  CONNECTION_LOST: 'E_CONNECTION_LOST',
  /** The other side said nothing for too long. */
  TIMEOUT: 'E_TIMEOUT',
  /** The other side sent what the protocol does not allow. */
  PROTOCOL: 'E_PROTOCOL',
  /** Bytes were damaged, lost, repeated or reordered on the way; a new connection may do. */
  CORRUPT_STREAM: 'E_CORRUPT_STREAM',
  /** The other side speaks another version of the protocol, or another protocol. */
  VERSION: 'E_VERSION',
  /** What arrived or what was written is not what was sent. */
  DIGEST_MISMATCH: 'E_DIGEST_MISMATCH',
  /** The two sides do not fit together: number of files, sizes, features. */
  MISMATCH: 'E_MISMATCH',
  /** TLS could not be set up, or the other side is not whom we trust. */
  TLS: 'E_TLS',
  /** QEMU's monitor cannot be used, refused a command, or went away. */
  QMP: 'E_QMP',
  /** The guest is not one that can be moved live from outside: its memory, its devices or its state. */
  GUEST: 'E_GUEST',
  /** The guest writes memory faster than it can be moved, and the user chose to fail then. */
  NO_CONVERGENCE: 'E_NO_CONVERGENCE',
  /** A live move was committed and the destination's word of it never came: the source stays paused. */
  UNACKNOWLEDGED: 'E_UNACKNOWLEDGED',
  /** The caller's AbortSignal, SIGINT or SIGTERM ended the transfer. */
  ABORTED: 'E_ABORTED',
  /** A defect of Ballast itself. */
  INTERNAL: 'E_INTERNAL',
} as const;

export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

const KNOWN_CODES: ReadonlySet<string> = new Set(Object.values(ErrorCode));

export function isErrorCode(text: string): text is ErrorCode {
  return KNOWN_CODES.has(text);
}

/**
 * The one kind of error that Ballast's functions throw. `message` is one sentence: what was wrong, what was expected,
 * what to do. `cause` keeps the original error where there is one.
 */
export class BallastError extends Error {
  override readonly name = 'BallastError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  /** Any thrown value as a BallastError: itself, what it says of this process or the machine, or an internal error. */
  static from(error: unknown): BallastError {
    if (error instanceof BallastError) return error;
    const code = systemCode(error);
    if (code === 'EMFILE' || code === 'ENFILE') return outOfDescriptors(code, error);
    const text = error instanceof Error ? error.message : String(error);
    return new BallastError(
      ErrorCode.INTERNAL,
      `unexpected failure inside ballast: ${text}; run again with --debug and report the trace`,
      {
        cause: error,
      },
    );
  }
}

const RETRYABLE: ReadonlySet<ErrorCode> = new Set([
  ErrorCode.CONNECT,
  ErrorCode.CONNECTION_LOST,
  ErrorCode.TIMEOUT,
  ErrorCode.CORRUPT_STREAM,
  ErrorCode.BUSY,
]);

/** Whether a new connection may get past the error: it was about the way, not about what was to be moved. */
export function isRetryable(error: BallastError): boolean {
  return RETRYABLE.has(error.code);
}

/** A connection, a thread or a file needed a descriptor, and there was none: others may give some back. */
export function outOfDescriptors(code: string, cause: unknown): BallastError {
  return new BallastError(
    ErrorCode.BUSY,
    `no file descriptor is left (${code}); allow more with ulimit -n, or use fewer channels`,
    { cause },
  );
}

const SYSTEM_ADVICE: ReadonlyMap<string, string> = new Map([
  ['EROFS', 'the filesystem is read-only; mount it for writing, or choose another folder'],
  ['EACCES', 'this user may not; allow it, or run as a user who may'],
  [
    'EPERM',
    'the system does not allow it; look for an immutable file (lsattr), a seal, or a rule of SELinux or AppArmor',
  ],
  ['ENOTDIR', 'what should be a folder on the way to it is none; check the path'],
  ['ELOOP', 'its symbolic links lead in a circle; check them'],
  ['ENAMETOOLONG', 'the name is longer than the system takes; choose a shorter one'],
  ['EIO', 'the device failed; see dmesg, and check the disk or the network filesystem'],
  ['ENXIO', 'nobody reads from its other end; start the reader first, or name a file'],
  ['ESTALE', 'the network filesystem lost the file; see whether its server exports it still'],
]);

/** What the system said and what to do about it, to end a sentence about a file: "(EROFS): the filesystem is…". */
export function systemReason(error: unknown): string {
  const code = systemCode(error) ?? 'unknown error';
  const advice = SYSTEM_ADVICE.get(code);
  return advice === undefined ? `(${code})` : `(${code}): ${advice}`;
}

/** The `code` of a Node.js system error ("ENOENT", "EPIPE"…), or undefined for anything else. */
export function systemCode(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}
