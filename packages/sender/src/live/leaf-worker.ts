import { parentPort } from 'node:worker_threads';
import { BallastError } from '@ballast/shared/errors';
import type { WorkerMessage } from './leaf-digests.js';
import { WindowDigests, type LeafWork } from './window-digests.js';

/* The body of a thread of LeafDigester: says that it is there, and answers each pass when no window of it is left. */

const digests = new WindowDigests();

parentPort?.on('message', (work: LeafWork) => {
  tell(partOf(work));
});
tell('ready');

function partOf(work: LeafWork): WorkerMessage {
  const before = digests.hintMs;
  try {
    digests.work(work);
    return { hintMs: digests.hintMs - before };
  } catch (error) {
    const { code, message } = BallastError.from(error);
    return { error: { code, message } };
  }
}

function tell(message: WorkerMessage): void {
  parentPort?.postMessage(message);
}
