import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { PrivateFolder } from './folder.js';

const PIECE = 8 << 20;

/**
 * Touches as much memory as a run will need and gives it back. A virtual machine gets memory from its host at the first
 * touch, which is several times slower than every later one, and may hand what lies free for two seconds back to the
 * host: so this comes right before each run, or whoever runs after a pause pays for it.
 */
export async function warmMemory(folder: PrivateFolder, bytes: number): Promise<void> {
  if (folder.kind !== 'tmpfs') return;
  const path = folder.file('warm-up');
  const fd = openSync(path, 'wx', 0o600);
  try {
    const piece = Buffer.alloc(PIECE, 1);
    for (let done = 0; done < bytes; done += PIECE) {
      writeSync(fd, piece, 0, Math.min(PIECE, bytes - done), done);
      await nextTurn();
    }
  } finally {
    closeSync(fd);
    unlinkSync(path);
  }
}
