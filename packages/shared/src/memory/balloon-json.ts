import { BallastError, ErrorCode } from '../errors.js';
import { withBalloonFile, wholePages, type BalloonFile } from './balloon-file.js';
import { ExtentSet } from './extents.js';
import { PAGE_SIZE } from './page.js';

/** Bytes of JSON that are taken: about a million entries. Parsing takes five to ten times as much memory, a bitmap almost none. */
const MAX_JSON_BYTES = 128 * 1024 * 1024;

/** Which program wrote the map. */
type Dialect = 'qemu-img' | 'nbdinfo';

const HOW_TO_MAKE_ONE = 'make it with `qemu-img map --output=json` or `nbdinfo --map --json`';

/** What nbdinfo writes beside `type` where it was asked for another context than base:allocation, whose numbers mean something else. */
const OTHER_CONTEXT = /^(?:absent|unallocated|local|backing depth [0-9]+|clean|dirty)$/;

/** The entries of a map as columns, in the order of the file. */
interface Entries {
  /** First byte of each. */
  readonly starts: Float64Array;
  /** Byte after the last of each. */
  readonly ends: Float64Array;
  /** 1 where the entry reads as zeros. */
  readonly free: Uint8Array;
}

/**
 * Reads a balloon map in the JSON of `qemu-img map --output=json`, where `zero` says what is free, or of
 * `nbdinfo --map --json`, where bit 1 of `type` does. Entries may come in any order; what none of them names is not
 * free. Free entries that touch are joined first and then shrunk inward to whole pages.
 * @param memoryBytes size of the memory file that the map speaks of
 * @returns the bytes that are free
 * @throws BallastError BALLOON_MAP, with the entry named, when the map is malformed, contradicts itself or reaches
 *   beyond the memory by more than a page; NOT_FOUND, BAD_FILE or READ when the file cannot be used
 */
export function readBalloonJson(path: string, memoryBytes: number): ExtentSet {
  const list = withBalloonFile(path, parseArray);
  const entries = readEntries(path, list, memoryBytes);
  const order = ascending(entries.starts);
  const free = ExtentSet.builder();
  let before: number | undefined;
  for (const index of order) {
    const start = entries.starts[index] ?? 0;
    const end = entries.ends[index] ?? 0;
    if (before !== undefined && start < (entries.ends[before] ?? 0)) {
      throw refused(
        path,
        `entry ${index} (${shown(list[index])}) overlaps entry ${before} (${shown(list[before])}); expected each byte in at most one: ${HOW_TO_MAKE_ONE} again`,
      );
    }
    before = index;
    if (entries.free[index] === 1) free.add(start, end);
  }
  return wholePages(free.build(), memoryBytes);
}

function parseArray(file: BalloonFile): readonly unknown[] {
  if (file.bytes > MAX_JSON_BYTES) {
    throw refused(
      file.path,
      `it has ${file.bytes} bytes; a map in JSON may have at most ${MAX_JSON_BYTES}: give it as a bitmap, one bit a page`,
    );
  }
  const text = Buffer.allocUnsafe(file.bytes);
  file.read(text, 0);
  let value: unknown;
  try {
    value = JSON.parse(text.toString('utf8'));
  } catch (error) {
    throw refused(file.path, `it is not JSON; expected an array of entries: ${HOW_TO_MAKE_ONE}`, error);
  }
  if (!Array.isArray(value)) {
    throw refused(file.path, `it holds no array; expected an array of entries: ${HOW_TO_MAKE_ONE}`);
  }
  return value as readonly unknown[];
}

/** Checks each entry by itself. By hand: a schema library takes several times as long, and a map can have millions. */
function readEntries(path: string, list: readonly unknown[], memoryBytes: number): Entries {
  const starts = new Float64Array(list.length);
  const ends = new Float64Array(list.length);
  const free = new Uint8Array(list.length);
  let dialect: Dialect | undefined;
  for (const [index, entry] of list.entries()) {
    const complain = (problem: string): BallastError => refused(path, `entry ${index} (${shown(entry)}) ${problem}`);
    if (!isRecord(entry))
      throw complain(`is no object; expected one with the place of a run of bytes: ${HOW_TO_MAKE_ONE}`);
    const its = dialectOf(entry, complain);
    dialect ??= its;
    if (its !== dialect) {
      throw complain(
        `is of ${its}, but entry 0 is of ${dialect}; expected one of them throughout: give the other as a map of its own`,
      );
    }
    const place = its === 'qemu-img' ? 'start' : 'offset';
    const start = entry[place];
    const length = entry['length'];
    if (!isSize(start))
      throw complain(`has no usable \`${place}\`; expected an integer from 0 to 2^53: ${HOW_TO_MAKE_ONE}`);
    if (!isSize(length) || length === 0) {
      throw complain(`has no usable \`length\`; expected an integer from 1 to 2^53: ${HOW_TO_MAKE_ONE}`);
    }
    // Tools round the end of a file up to their own unit, so that a last run may reach a little too far.
    if (start + length > memoryBytes + PAGE_SIZE) {
      throw complain(
        `reaches beyond the memory, which ends at ${memoryBytes}; expected a map of this memory file: make it again from this one`,
      );
    }
    starts[index] = start;
    ends[index] = start + length;
    free[index] = (its === 'qemu-img' ? isZeroInQemu(entry, complain) : isZeroInNbd(entry, complain)) ? 1 : 0;
  }
  return { starts, ends, free };
}

type Complain = (problem: string) => BallastError;
type JsonRecord = Readonly<Record<string, unknown>>;

/** qemu-img's entries have an `offset` too, into the image file: `start` is what tells them apart. */
function dialectOf(entry: JsonRecord, complain: Complain): Dialect {
  if ('start' in entry) return 'qemu-img';
  if ('offset' in entry) return 'nbdinfo';
  if ('size' in entry && 'percent' in entry) {
    throw complain(
      'is a total of `nbdinfo --map --totals`, which says how much is free but not where; expected the map itself: run nbdinfo again without --totals',
    );
  }
  throw complain(`has neither \`start\` nor \`offset\`; expected one of them: ${HOW_TO_MAKE_ONE}`);
}

function isZeroInQemu(entry: JsonRecord, complain: Complain): boolean {
  const zero = entry['zero'];
  if (typeof zero === 'boolean') return zero;
  throw complain(`has no usable \`zero\`; expected true or false: make it with \`qemu-img map --output=json\``);
}

function isZeroInNbd(entry: JsonRecord, complain: Complain): boolean {
  const { type, description } = entry;
  if (!isSize(type))
    throw complain(`has no usable \`type\`; expected an integer from 0: make it with \`nbdinfo --map --json\``);
  if (typeof description === 'string' && OTHER_CONTEXT.test(description)) {
    throw complain(
      'is of another context than base:allocation, and says nothing about zeros; expected a map of base:allocation: run nbdinfo with a plain --map',
    );
  }
  // Not type & 2: the flags may have more than 32 bits.
  return Math.floor(type / 2) % 2 === 1;
}

/** Indices of `starts` by ascending value; as they are where they ascend already, as the tools write them. */
function ascending(starts: Float64Array): Uint32Array {
  const order = Uint32Array.from(starts, (_, index) => index);
  const sorted = starts.every((start, index) => index === 0 || (starts[index - 1] ?? 0) <= start);
  return sorted ? order : order.sort((a, b) => (starts[a] ?? 0) - (starts[b] ?? 0));
}

function isRecord(value: unknown): value is JsonRecord {
  return isNested(value) && !Array.isArray(value);
}

function isNested(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** An entry for people, on one line, not too long, and without what is nested in it. */
function shown(entry: unknown): string {
  // Not by the key: that of the entry is empty, and one inside may be so, too.
  const text = JSON.stringify(entry, (_, value: unknown) => (value !== entry && isNested(value) ? '…' : value));
  return text.length <= 160 ? text : `${text.slice(0, 159)}…`;
}

function refused(path: string, problem: string, cause?: unknown): BallastError {
  return new BallastError(
    ErrorCode.BALLOON_MAP,
    `the balloon map ${path} cannot be used: ${problem}`,
    cause === undefined ? {} : { cause },
  );
}
