import { BallastError, ErrorCode } from '@ballast/shared/errors';
import type { RecoveredEvent, SendEvent } from '@ballast/shared/events';
import { QmpClient, runStateOf } from '@ballast/shared/qmp';
import { aborted } from '../connect.js';
import { DestinationWord, askDestination } from './ask-destination.js';
import type { DestinationFinding } from './choices.js';
import { dialOptions, unacknowledged } from './move-guest.js';
import { MoveStage, readRecord, recordPath, removeRecord, type MoveRecord } from './record.js';
import { restoreGuest, type Restoration } from './restore-guest.js';
import { checkSameQemu, processStart } from './source-guest.js';

export interface RecoverOptions {
  /** The monitor of the source's QEMU. */
  readonly qmp: string;
  /** Default: as for `moveGuest`. */
  readonly record?: string;
  /** What is known of the destination: `runs` there, or `gone` for sure and never to run. */
  readonly destination?: DestinationFinding;
  /** Milliseconds for which the destination is asked. Default: 10 s. */
  readonly timeoutMs?: number;
  /** Ends the wait for the monitor, or for the destination, before anything is done. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: SendEvent) => void;
}

const DEFAULT_TIMEOUT_MS = 10_000;

/**
 * After a sender that was killed: finds out from its record what is safe for the guest, and does it. A guest that was
 * not committed goes on here; one that was goes on here only if the destination, or a person, says that it never ran
 * there.
 * @throws BallastError UNACKNOWLEDGED when nobody knows; then nothing was changed. BUSY, QMP, READ, BAD_FILE, GUEST;
 *     ABORTED by the signal
 */
export async function recoverGuest(options: RecoverOptions): Promise<RecoveredEvent> {
  const path = options.record ?? recordPath(options.qmp);
  const result = await recover(options, path, readRecord(path));
  options.onEvent?.(result);
  return result;
}

async function recover(options: RecoverOptions, path: string, record: MoveRecord | undefined): Promise<RecoveredEvent> {
  const { qmp: monitor, destination, timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  const told = (action: RecoveredEvent['action'], message: string): RecoveredEvent => {
    removeRecord(path);
    return { event: 'recovered', stage: record?.stage ?? 'none', action, message };
  };
  if (record === undefined) return told('nothing', `no move of the guest at ${monitor} was interrupted`);
  if (processStart(record.sender.pid) === record.sender.start) {
    throw new BallastError(
      ErrorCode.BUSY,
      `the ballast-send that moves the guest at ${monitor} is still at work (process ${record.sender.pid})`,
    );
  }
  if (processStart(record.qemu.pid) !== record.qemu.start)
    return told('nothing', `the QEMU whose guest was being moved has ended; nothing is left to recover here`);

  // A person may have resumed there what was never committed.
  let word: DestinationWord = destination === 'runs' ? DestinationWord.runsThere : DestinationWord.neverRan;
  if (record.stage === MoveStage.committing) {
    if (destination === undefined)
      word = await askDestination({
        to: record.to,
        tls: dialOptions(tlsOf(record)),
        session: Buffer.from(record.session, 'hex'),
        regions: record.regions,
        timeoutMs,
        patienceMs: timeoutMs,
        signal,
      });
    if (signal?.aborted === true) throw aborted();
    if (word === DestinationWord.unknown) {
      const why = 'the sender was interrupted at the commit, and the destination cannot be asked';
      throw unacknowledged({ qmp: monitor, to: record.to }, new BallastError(ErrorCode.CONNECT, why));
    }
  }

  const { regions, stage } = record;
  const mayBeSet = stage === MoveStage.stopped || stage === MoveStage.committing;
  const restoration: Restoration = {
    settings: mayBeSet ? record.settings : undefined,
    ran: record.runs,
    mayBeStopped: stage !== MoveStage.rounds,
    // What flowed has ended with the sender.
    stream: mayBeSet ? 'saved' : 'none',
  };
  const qmp = await QmpClient.connect(monitor, undefined, signal);
  try {
    await checkSameQemu(qmp, record.qemu);
    if (word === DestinationWord.runsThere) {
      if ((await runStateOf(qmp)).running) {
        throw new BallastError(
          ErrorCode.GUEST,
          `the guest at ${monitor} runs here, and is said to run at the destination; nothing was changed: end one of them by hand`,
        );
      }
      if (record.sourceAfter === 'quit') {
        await qmp.execute('quit');
        return told('quit', 'the guest runs at the destination; its QEMU here was ended');
      }
      await restoreGuest(qmp, { ...restoration, ran: false }, regions);
      return told('left-paused', 'the guest runs at the destination; what is left of it here stays paused');
    }
    const { how, running } = await restoreGuest(qmp, restoration, regions);
    return told(running ? 'resumed' : 'left-paused', `the guest was not moved; it ${how}`);
  } finally {
    qmp.close();
  }
}

function tlsOf({ tls }: MoveRecord): { directory: string; hostname?: string } | undefined {
  if (tls === undefined) return undefined;
  return { directory: tls.directory, ...(tls.hostname === undefined ? {} : { hostname: tls.hostname }) };
}
