import {
  describeResult,
  parseSeconds,
  printable,
  runProgram,
  type ActionContext,
  type CommonOptions,
} from '@ballast/shared/cli';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { formatAddress, parseAddress, type Address } from '@ballast/shared/transport';
import { receiveForever, receiveMemory } from '../receive-memory.js';
import type { ReceiveOptions } from '../receive-options.js';
import { VERSION } from './version.js';

interface ReceiveCliOptions extends CommonOptions {
  readonly listen?: Address;
  readonly force?: boolean;
  readonly sink?: boolean;
  readonly inPlace?: boolean;
  readonly qmp?: string;
  readonly reuse?: readonly string[];
  readonly tlsDir?: string;
  readonly tlsAllow?: readonly string[];
  readonly insecure?: boolean;
  readonly spaceCheck: boolean;
  readonly keepListening?: boolean;
  readonly timeout: number;
}

/** The program ballast-receive. Returns its exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  return await runProgram('ballast-receive', argv, (program, bind) => {
    program
      .description(
        "Receives a virtual machine's memory from ballast-send, and gives the file its name once it is proved right.",
      )
      .version(VERSION)
      .argument('[FILE...]', 'files to make, in the same order as on the other side')
      .option(
        '--listen <HOST:PORT>',
        'where to wait for the sender; port 0 for any (default: 127.0.0.1:7700)',
        (text: string) => parseAddress(text, 0),
      )
      .option('--force', 'replace FILE if it exists')
      .option('--sink', 'verify what comes and write no file')
      .option(
        '--in-place',
        'write into the existing FILE, as a waiting QEMU has it mapped; a failed run leaves it unusable',
      )
      .option(
        '--qmp <SOCKET>',
        'receive a running guest into the QEMU that waits there (-incoming defer); its memory files are found over QMP',
      )
      .option(
        '--reuse <OLD>',
        'an older copy of the memory, of which only what differs is sent; once for each FILE',
        collect,
      )
      .option('--tls-dir <DIR>', 'TLS 1.3 with ca-cert.pem, server-cert.pem and server-key.pem of DIR')
      .option(
        '--tls-allow <NAME>',
        'let in only senders whose certificate has this name; may be given more than once',
        collect,
      )
      .option('--insecure', 'listen beyond this machine although nothing authenticates the sender')
      .option('--no-space-check', 'start even if the memory might not fit the filesystem')
      .option('--keep-listening', 'wait for the next sender afterwards')
      .option(
        '--timeout <SECONDS>',
        'give up when the sender is silent, or gone, for so long',
        (text: string) => parseSeconds(text, 1),
        30,
      )
      .action(bind(runReceive));
    program.addHelpText('after', EXAMPLES);
  });
}

const EXAMPLES = `
Examples:
  ballast-receive guest.mem
  ballast-receive guest.mem --listen 0.0.0.0:7700 --tls-dir /etc/pki/qemu
  ballast-receive guest.mem --reuse template.mem
  ballast-receive --qmp /run/guest.qmp --listen 0.0.0.0:7700 --tls-dir /etc/pki/qemu
  ballast-receive --sink --keep-listening`;

function collect(text: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), text];
}

async function runReceive(options: ReceiveCliOptions, { args: files, output, signal }: ActionContext): Promise<void> {
  if (options.tlsAllow !== undefined && options.tlsDir === undefined) {
    throw new BallastError(
      ErrorCode.USAGE,
      '--tls-allow names certificates, and without --tls-dir there are none; add --tls-dir',
    );
  }
  // Node.js puts this character where an argument is not UTF-8: a file would be made under another name than was given.
  const garbled = files.find((file) => file.includes('\ufffd'));
  if (garbled !== undefined) {
    throw new BallastError(ErrorCode.USAGE, `the name ${printable(garbled, 200)} is not UTF-8; choose one that is`);
  }
  const what =
    options.sink === true
      ? 'received a memory'
      : options.qmp !== undefined
        ? `received the guest of ${printable(options.qmp, 200)}`
        : `received ${files.map((file) => printable(file, 200)).join(', ')}`;
  const receive: ReceiveOptions = {
    files,
    ...(options.listen === undefined ? {} : { listen: options.listen }),
    force: options.force ?? false,
    sink: options.sink ?? false,
    inPlace: options.inPlace ?? false,
    insecure: options.insecure ?? false,
    ...(options.qmp !== undefined && { qmp: options.qmp }),
    ...(options.reuse && { reuse: options.reuse }),
    ...(options.tlsDir === undefined
      ? {}
      : { tls: { directory: options.tlsDir, ...(options.tlsAllow && { allow: options.tlsAllow }) } }),
    checkSpace: options.spaceCheck,
    timeoutMs: options.timeout * 1000,
    signal,
    onEvent(event) {
      output.event(event);
      if (event.event === 'progress') output.progress(event);
      else if (event.event === 'warning') output.warn(event.message);
      else if (event.event === 'retry') output.warn(`${event.message}; waiting for the sender to come back`);
      else if (event.event === 'listening') output.note(`listening on ${formatAddress(event)}`);
      else if (event.event === 'done') output.done(describeResult(what, event));
    },
  };
  if (options.keepListening !== true) {
    await receiveMemory(receive);
    return;
  }
  await receiveForever(receive, (result) => {
    if (result instanceof BallastError) output.error(result);
  });
}
