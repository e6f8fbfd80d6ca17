import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { ErrorCode } from '@ballast/shared/errors';
import { threadFailure } from '@ballast/shared/thread-failure';

test('a thread that ran out of memory is not said to have lacked descriptors when it was started', async (t) => {
  const worker = new Worker('const kept = []; for (;;) kept.push(new Array(1000).fill(kept.length + 0.5));', {
    eval: true,
    resourceLimits: { maxOldGenerationSizeMb: 16 },
  });
  const [error] = (await once(worker, 'error')) as [unknown];
  const { code, message } = threadFailure(error);
  t.is(code, ErrorCode.BUSY);
  t.regex(message, /^the thread of a channel has no memory left \(.*\); use fewer channels/);
});
