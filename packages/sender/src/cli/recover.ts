import type { ActionContext, CommonOptions } from '@ballast/shared/cli';
import type { DestinationFinding } from '../live/choices.js';
import { recoverGuest } from '../live/recover.js';

interface RecoverCliOptions extends CommonOptions {
  readonly qmp: string;
  readonly record?: string;
  readonly destination?: DestinationFinding;
  readonly timeout: number;
}

/** `ballast-send recover --qmp SOCKET` */
export async function runRecover(
  { qmp, record, destination, timeout }: RecoverCliOptions,
  { output, signal }: ActionContext,
): Promise<void> {
  const recovered = await recoverGuest({
    qmp,
    ...(record === undefined ? {} : { record }),
    ...(destination === undefined ? {} : { destination }),
    timeoutMs: timeout * 1000,
    signal,
  });
  output.event(recovered);
  output.done([recovered.message]);
}
