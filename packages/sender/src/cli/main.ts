import { STRATEGY_NAMES } from '../strategy.js';
import { lazily, parseCount, parseMilliseconds, parseRate, parseSeconds, runProgram } from '@ballast/shared/cli';
import { MIN_BANDWIDTH, parseAddress } from '@ballast/shared/transport';
import { Option } from 'commander';
import { DESTINATION_FINDINGS, NO_CONVERGENCE_ACTIONS, SOURCE_AFTER } from '../live/choices.js';
import { parseBalloonOrigin, type BalloonOrigin } from '../balloon/balloon-map.js';
import { CompressionChoice } from '../compression/choice.js';
import { ReadMethod } from '../source/memory-source.js';
import { parseChannels } from './channels-option.js';
import { runSend } from './send.js';
import { addTrialOptions } from './trial-options.js';
import { VERSION } from './version.js';

/** The program ballast-send. Returns its exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  return await runProgram('ballast-send', argv, (program, bind) => {
    program
      .enablePositionalOptions()
      .description("Sends a virtual machine's memory to a waiting ballast-receive, and proves that it arrived.")
      .version(VERSION)
      .argument('[FILE...]', 'memory files of one guest, in the same order as on the other side')
      .option('--to <HOST:PORT>', 'where ballast-receive listens', (text: string) => parseAddress(text, 1))
      .addOption(balloonOption())
      .addOption(
        new Option('--strategy <NAME>', 'how pages that need not be sent are found and announced')
          .choices(STRATEGY_NAMES)
          .default('bitmap'),
      )
      .option(
        '--channels <N>',
        'connections that carry pages, each in a thread of its own: auto, or 1 to 16 (default: auto, by cores and memory)',
        parseChannels,
      )
      .addOption(readOption())
      .option(
        '--bandwidth <RATE>',
        'send no faster than this: bits a second, such as 10Gbit, or bytes a second, such as 500MiB (default: unlimited)',
        (text: string) => parseRate(text, MIN_BANDWIDTH),
      )
      .addOption(
        new Option('--compress <HOW>', 'compress pages on the wire; auto: while that makes the transfer faster')
          .choices(Object.values(CompressionChoice))
          .default(CompressionChoice.none),
      )
      .option('--check-source', 'read the source again at the end, and fail if it changed')
      .addOption(timeoutOption())
      .option(
        '--retry <SECONDS>',
        'keep trying for so long when the connection breaks; 0 for never',
        (text: string) => parseSeconds(text),
        60,
      )
      .addOption(tlsDirOption())
      .addOption(tlsHostnameOption())
      .option('--report <FILE.json>', 'write the result to a file, too')
      .option('--qmp <SOCKET>', 'move the running guest of the QEMU whose monitor this is; no FILE is given then')
      .option(
        '--downtime-limit <MS>',
        'with --qmp: stop the guest when it would stand still for no longer (default: 300)',
        parseMilliseconds,
      )
      .option('--max-rounds <N>', 'with --qmp: rounds at most (default: 30)', (text: string) =>
        parseCount(text, 1, 1000),
      )
      .addOption(
        new Option(
          '--on-no-convergence <ACTION>',
          'with --qmp: what to do with a guest that writes too fast (default: switch)',
        ).choices(NO_CONVERGENCE_ACTIONS),
      )
      .addOption(
        new Option(
          '--source-after <ACTION>',
          'with --qmp: what becomes of the QEMU here when the guest has gone (default: pause)',
        ).choices(SOURCE_AFTER),
      )
      .option('--dry-run', 'with --qmp: look at the guest and tell what a move would cost; nothing is changed or sent')
      .option('--record <FILE>', 'with --qmp: where to keep the record for recover')
      .action(bind(runSend));

    program
      .command('map')
      .description('Shows what a memory file holds: data, zeros, and what the balloon took out.')
      .argument('<FILE>', 'memory file')
      .addOption(balloonOption())
      .addOption(readOption())
      .option('--save-bitmap <FILE>', 'write the free pages as a bitmap for --balloon bitmap:FILE')
      .action(bind(lazily(async () => (await import('./map.js')).runMap)));

    program
      .command('digest')
      .description('Prints the root of a memory: equal roots, equal memories.')
      .argument('<FILE...>', 'memory files of one guest, in order')
      .addOption(balloonOption())
      .addOption(readOption())
      .action(bind(lazily(async () => (await import('./digest.js')).runDigest)));

    const trial = program
      .command('trial')
      .description('Measures each strategy on a memory and a link, several times in turn, beside what to expect.')
      .argument('[FILE...]', 'memory files of one guest, in order')
      .addOption(balloonOption())
      .addOption(readOption())
      .addOption(timeoutOption())
      .addOption(tlsDirOption())
      .addOption(tlsHostnameOption())
      .action(bind(lazily(async () => (await import('./trial.js')).runTrialCommand)));
    addTrialOptions(trial);

    program
      .command('recover')
      .description('After a live move whose ballast-send was killed: says what is safe for the guest, and does it.')
      .requiredOption('--qmp <SOCKET>', "the monitor of the guest's QEMU on this host")
      .option('--record <FILE>', 'the record, where the move was given one')
      .addOption(
        new Option(
          '--destination <FINDING>',
          'what you have found there, when it cannot be asked: the guest runs there, or its QEMU is gone for good',
        ).choices(DESTINATION_FINDINGS),
      )
      .option('--timeout <SECONDS>', 'how long to ask the destination', (text: string) => parseSeconds(text, 1), 10)
      .action(bind(lazily(async () => (await import('./recover.js')).runRecover)));

    program.addHelpText('after', EXAMPLES);
  });
}

const EXAMPLES = `
Examples:
  ballast-send guest.mem --to host-b:7700 --tls-dir /etc/pki/qemu
  ballast-send guest.mem --to host-b:7700 --balloon holes --balloon bitmap:balloon.bits
  ballast-send --qmp /run/guest.qmp --to host-b:7700 --tls-dir /etc/pki/qemu
  ballast-send map guest.mem
  ballast-send digest guest.mem
  ballast-send trial guest.mem --to host-b:7700 --bandwidths 1Gbit,unlimited --report trial.html

A file that is called like a command is given as ./map.`;

function balloonOption(): Option {
  return new Option(
    '--balloon <MAP>',
    'where the balloon map comes from: auto, none, holes, bitmap:FILE or map:FILE; more than once for the union, N:… for one of several files, counted from 0 (default: auto)',
  ).argParser((text, previous: readonly BalloonOrigin[] | undefined) => [
    ...(previous ?? []),
    parseBalloonOrigin(text),
  ]);
}

function timeoutOption(): Option {
  return new Option('--timeout <SECONDS>', 'give up when the receiver is silent for so long')
    .argParser((text) => parseSeconds(text, 1))
    .default(30);
}

function tlsDirOption(): Option {
  return new Option('--tls-dir <DIR>', 'TLS 1.3 with ca-cert.pem, client-cert.pem and client-key.pem of DIR');
}

function tlsHostnameOption(): Option {
  return new Option(
    '--tls-hostname <NAME>',
    "the name that the receiver's certificate must be for (default: the host of --to)",
  );
}

function readOption(): Option {
  return new Option('--read <HOW>', 'how the memory file is read (default: pread)').choices(Object.values(ReadMethod));
}
