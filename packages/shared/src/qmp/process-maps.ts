import { readFileSync, readdirSync } from 'node:fs';

/** A mapping of a file in a process, from /proc/PID/maps. */
export interface FileMapping {
  /** "START-END" in hexadecimal, as the names in /proc/PID/map_files are. */
  readonly range: string;
  readonly bytes: number;
  readonly shared: boolean;
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly inode: number;
  /** The file's path as the kernel knows it, without the mark of one that was deleted. */
  readonly path: string;
  readonly deleted: boolean;
}

const DELETED = ' (deleted)';

/**
 * All mappings of files in a process; empty where the process cannot be looked at. The device numbers of the kernel's
 * list are left out: some filesystems (overlay, btrfs) show others there than in stat(2).
 */
export function fileMappingsOf(pid: number): FileMapping[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/maps`, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    const match = /^([0-9a-f]+)-([0-9a-f]+) ...([sp]) ([0-9a-f]+) [0-9a-f]+:[0-9a-f]+ (\d+)\s+(\/.*)$/.exec(line);
    const [, start, end, kind, offset, inode, path] = match ?? [];
    if (start === undefined || end === undefined || offset === undefined || path === undefined || inode === '0')
      return [];
    const deleted = path.endsWith(DELETED);
    return [
      {
        range: `${start}-${end}`,
        bytes: Number.parseInt(end, 16) - Number.parseInt(start, 16),
        shared: kind === 's',
        offset: Number.parseInt(offset, 16),
        inode: Number(inode),
        path: unescaped(deleted ? path.slice(0, -DELETED.length) : path),
        deleted,
      },
    ];
  });
}

/** Every process that this user can see. */
export function allProcesses(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** The kernel writes a newline in a path as \012. */
function unescaped(path: string): string {
  return path.replaceAll('\\012', '\n');
}
