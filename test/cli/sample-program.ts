import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgumentError, Option } from 'commander';
import { parseSeconds, runProgram, type CommonOptions } from '@ballast/shared/cli';
import { BallastError, ErrorCode } from '@ballast/shared/errors';

/** A program on the common shell whose first argument says what it does: run by the tests, as users run the real ones. */

interface SampleOptions extends CommonOptions {
  readonly count: number;
}

process.exitCode = await runProgram('sample', process.argv.slice(2), (program, bind) => {
  program
    .enablePositionalOptions()
    .version('1.2.3')
    .argument('[WHAT]', 'what to do')
    .addOption(new Option('--colour <NAME>', 'a choice').choices(['red', 'green', 'blue']))
    .option('--timeout <SECONDS>', 'a time', (text: string) => parseSeconds(text), 30)
    .option('--count <N>', 'how often', wholeNumber, 1)
    .option('--word <WORD>', 'a text')
    .action(
      bind<SampleOptions>(async ({ count }, { args: [what], signal, output }) => {
        switch (what) {
          case 'count':
            for (let n = 0; n < count; n++) output.event({ event: 'progress', n, padding: 'x'.repeat(1000) });
            output.event({ event: 'done' });
            return;
          case 'talk':
            output.note('a note\nof two lines');
            output.progress({ phase: 'send', doneBytes: 1024, totalBytes: 4096, wireBytes: 10 });
            output.progress({ phase: 'send', doneBytes: 2048, totalBytes: 4096, wireBytes: 20 });
            output.progress({ phase: 'verify', doneBytes: 0, totalBytes: 4096, wireBytes: 30, round: 2 });
            output.warn('a \x1b[31mwarning');
            output.print('the answer');
            output.event({ key: 'value', event: 'said', hidden: 'a\u202eb\x9b' });
            output.done(['sent', 'root 1234']);
            return;
          case 'wait':
            output.event({ event: 'waiting' });
            await sleep(60_000, undefined, { signal });
            return;
          case 'stubborn':
            output.event({ event: 'waiting' });
            await sleep(60_000);
            return;
          case 'refuse':
            throw new BallastError(ErrorCode.EXISTS, 'it is there \x1b[31malready', { cause: new Error('the cause') });
          case 'defect':
            throw new TypeError('not a function');
          case 'late':
            setTimeout(() => {
              throw new TypeError('thrown by a timer');
            }, 10);
            await sleep(60_000, undefined, { signal });
            return;
          default:
            throw new BallastError(ErrorCode.USAGE, 'it is not said what to do; expected WHAT');
        }
      }),
    );
  program
    .command('show')
    .argument('<FILE>')
    .option('--count <N>', 'how often', wholeNumber)
    .action(
      bind((_options, { args, output }) => {
        output.print(args.join());
        return Promise.resolve();
      }),
    );
});

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('expected a whole number');
  return Number(text);
}
