import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';

/** How far a move had come. */
export const MoveStage = {
  /** Rounds, and nobody here has stopped the guest. */
  rounds: 'rounds',
  /** Rounds, and the guest is slowed down by short stops. Only in records. */
  throttled: 'throttled',
  /** The guest was stopped, or was about to be. Nothing was committed: it may go on here. */
  stopped: 'stopped',
  /** The commit was sent, or was about to be: the guest may run at the destination. */
  committing: 'committing',
} as const;
export type MoveStage = (typeof MoveStage)[keyof typeof MoveStage];

const recordSchema = v.strictObject({
  format: v.literal(1),
  stage: v.picklist(Object.values(MoveStage)),
  qmp: v.string(),
  /** QEMU's process, and when it began. */
  qemu: v.strictObject({ pid: v.number(), start: v.string() }),
  /** The process that moves the guest. */
  sender: v.strictObject({ pid: v.number(), start: v.string() }),
  /** Whether the guest ran before, and is to run afterwards. */
  runs: v.boolean(),
  sourceAfter: v.picklist(['pause', 'quit']),
  /** What is to be put back. */
  settings: v.strictObject({
    capabilities: v.record(v.string(), v.boolean()),
    parameters: v.record(v.string(), v.number()),
  }),
  /** Where the destination is, and the token of the session, hexadecimal. */
  to: v.strictObject({ host: v.string(), port: v.number() }),
  tls: v.optional(v.strictObject({ directory: v.string(), hostname: v.optional(v.string()) })),
  session: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  regions: v.array(v.number()),
});

export type MoveRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/**
 * Where the record of a move is kept: one file a monitor, in a folder that does not outlive the host, as QEMU does not
 * either. Not in the folder of root's login, which goes with the last one, and which a service does not know of.
 */
export function recordPath(qmp: string): string {
  const runtime = process.env['XDG_RUNTIME_DIR'] ?? '';
  const isRoot = process.getuid?.() === 0;
  const isForThis = runtime !== '' && !(isRoot && runtime.startsWith('/run/user/'));
  const parent = isForThis ? runtime : isRoot ? '/run' : tmpdir();
  const name = createHash('sha256').update(realPath(qmp)).digest('hex').slice(0, 16);
  return join(parent, 'ballast', `${name}.json`);
}

/**
 * Writes a record so that it survives whatever happens to this process or its host's power.
 * @throws BallastError WRITE
 */
export function writeRecord(path: string, record: MoveRecord): void {
  const draft = `${path}.${process.pid}`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    rmSync(draft, { force: true });
    // A new file, and never through a link: the folder may be one that others can write to.
    const fd = openSync(draft, 'wx', 0o600);
    try {
      writeFileSync(fd, `${JSON.stringify(record, null, 1)}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(draft, path);
    syncFolder(dirname(path));
  } catch (error) {
    rmSync(draft, { force: true });
    throw new BallastError(
      ErrorCode.WRITE,
      `the record ${path} of this move cannot be written (${systemCode(error) ?? 'unknown error'}); without it a crash would leave nobody the wiser: choose another place with --record`,
      { cause: error },
    );
  }
}

/**
 * @returns undefined when there is none
 * @throws BallastError READ, BAD_FILE
 */
export function readRecord(path: string): MoveRecord | undefined {
  let text: string;
  let owner: number;
  try {
    // Without waiting: nobody may ever write into a FIFO.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      owner = stat.uid;
      text = stat.isFile() ? readFileSync(fd, 'utf8') : '';
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw new BallastError(
      ErrorCode.READ,
      `the record ${path} cannot be read (${systemCode(error) ?? 'unknown error'}); run as the user of the move`,
      { cause: error },
    );
  }
  // It says what is done to a guest.
  if (owner !== 0 && owner !== process.geteuid?.())
    throw new BallastError(
      ErrorCode.READ,
      `the record ${path} belongs to another user (${owner}); run as the user of the move, or remove it by hand`,
    );
  try {
    return v.parse(recordSchema, JSON.parse(text));
  } catch (error) {
    throw new BallastError(
      ErrorCode.BAD_FILE,
      `${path} is no record of a move; look at the guests on both hosts, and remove it by hand`,
      { cause: error },
    );
  }
}

export function removeRecord(path: string): void {
  rmSync(path, { force: true });
}

function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } catch (error) {
    // Some filesystems have nothing to sync of a folder.
    if (systemCode(error) !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
