import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import {
  ignoresShared,
  isMigrating,
  putBack,
  runStateOf,
  stillSet,
  type QmpClient,
  type SavedSettings,
} from '@ballast/shared/qmp';

/** How far QEMU's stream of device state had come: not begun, perhaps under way, or perhaps complete. */
export type StreamStage = 'none' | 'flows' | 'saved';

export interface Restoration {
  /** What was set before the move; undefined where nothing can be left of what the move has set. */
  readonly settings: SavedSettings | undefined;
  /** Whether the guest ran before. */
  readonly ran: boolean;
  /** Whether the move may have stopped it: then it is to run again if it ran before. */
  readonly mayBeStopped: boolean;
  readonly stream: StreamStage;
}

/** How a guest is that was not moved. */
export interface RestoredGuest {
  readonly running: boolean;
  /** In words that follow "the guest". */
  readonly how: string;
}

const CANCEL_TIMEOUT_MS = 5000;

const ramSchema = v.looseObject({
  ram: v.optional(
    v.looseObject({ normal: v.number(), duplicate: v.number(), 'page-size': v.number(), total: v.number() }),
  ),
});

/**
 * Cancels the stream of device state, puts settings back, and lets the guest run if the move has stopped it. What
 * somebody else migrates is left alone, and a guest that went elsewhere with that is never resumed.
 * @param regionBytes sizes of the guest's memory files
 * @throws BallastError QMP
 */
export async function restoreGuest(
  qmp: QmpClient,
  { settings, ran, mayBeStopped, stream }: Restoration,
  regionBytes: readonly number[],
): Promise<RestoredGuest> {
  const deadline = performance.now() + CANCEL_TIMEOUT_MS;
  const set = settings && (await stillSet(qmp, settings));
  // With our settings somebody else's migration would carry no memory, and nobody would know.
  if (stream === 'flows' || Object.keys(set?.capabilities ?? {}).length > 0) {
    while ((await isMigrating(qmp)) && performance.now() < deadline) {
      await qmp.execute('migrate_cancel');
      await sleep(20);
    }
  }
  if (set !== undefined) await putBack(qmp, set);
  let { status, running } = await runStateOf(qmp);
  // QEMU says that a migration has ended a moment before it has, and refuses 'cont' until then.
  while (status === 'finish-migrate' && performance.now() < deadline) {
    await sleep(20);
    ({ status, running } = await runStateOf(qmp));
  }
  if (status === 'postmigrate' && (stream === 'none' || (await wasMemorySent(qmp, regionBytes)))) {
    const how = "stands still here, as somebody else has migrated it: if it runs nowhere else, resume it with 'cont'";
    return { running: false, how };
  }
  if (running) return { running, how: ran ? 'runs on here' : 'runs here, as somebody else has resumed it' };
  if (ran && !mayBeStopped) return { running, how: 'stands still here, as somebody else has paused it' };
  if (ran) {
    await qmp.execute('cont');
    return { running: true, how: 'runs on here' };
  }
  // Nothing leads back from there but running, and it is not ours to let it run.
  const name =
    status === 'postmigrate'
      ? "; QEMU calls that 'postmigrate' from now on in place of 'paused', and 'cont' resumes it as ever"
      : '';
  return { running, how: `stands still here, as before${name}` };
}

/** Whether the last migration carried the guest's memory, as ours never does: then it was somebody else's. */
async function wasMemorySent(qmp: QmpClient, regionBytes: readonly number[]): Promise<boolean> {
  // Who leaves shared memory out of every migration cannot be told from us.
  if (await ignoresShared(qmp)) return false;
  const { ram } = await qmp.query('query-migrate', ramSchema);
  if (ram === undefined) return false;
  const deviceBytes = ram.total - regionBytes.reduce((sum, bytes) => sum + bytes, 0);
  // Ours sends device memory once, any other all memory: but for free pages, and some of it twice.
  return (ram.normal + ram.duplicate) * ram['page-size'] > (deviceBytes + ram.total) / 2;
}
