import type { Worker } from 'node:worker_threads';

/**
 * When a thread may be terminated: once its modules are loaded, or it has ended. A thread that is terminated while it
 * loads koffi takes the whole process with it, by SIGABRT: koffi throws into a thread that takes no exceptions any more
 * (seen with koffi 3 on Node 20).
 * @param worker one that was just made, and says something as soon as it runs
 */
export function threadLoaded(worker: Worker): Promise<void> {
  return new Promise((resolve) => {
    const loaded = (): void => {
      resolve();
    };
    worker.once('message', loaded);
    worker.once('exit', loaded);
  });
}
