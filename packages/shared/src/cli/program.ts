import { Command } from 'commander';
import { BallastError, ErrorCode } from '../errors.js';
import { Interruption } from './interruption.js';
import { createOutput, type Output } from './output.js';
import { Sink, type TextStream } from './sink.js';
import { explainUsage, isHelpOrVersion } from './usage.js';

/** What an action is given beside its options. */
export interface ActionContext {
  /** Positional arguments, as they were written. */
  readonly args: readonly string[];
  /** Names of the options that were written, as they are called on the command line: "--bandwidth". */
  readonly written: ReadonlySet<string>;
  /** Aborted by SIGINT, SIGTERM and SIGHUP; an action then ends soon, in good order, and throws. */
  readonly signal: AbortSignal;
  readonly output: Output;
}

/** The options that every command has; runProgram adds them. */
export interface CommonOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly debug?: boolean;
}

export type Action<Options extends CommonOptions> = (options: Options, context: ActionContext) => Promise<void>;

/** An action whose code is loaded when it is run: a command line needs one of several. */
export function lazily<Options extends CommonOptions>(load: () => Promise<Action<Options>>): Action<Options> {
  return async (options, context) => {
    const action = await load();
    await action(options, context);
  };
}

/** Turns an action into what commander's `.action()` takes. The options of parent commands are among its options. */
export type Bind = <Options extends CommonOptions>(
  action: Action<Options>,
) => (...parameters: unknown[]) => Promise<void>;

/** Streams of a program. */
export interface ProgramStreams {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
}

/**
 * Runs a command line: the outer shell that both programs share. Nothing is thrown; errors are reported as Output says.
 *
 *     runProgram('ballast-send', process.argv.slice(2), (program, bind) => {
 *       program.version(version).argument('<file...>').requiredOption('--to <address>', '…', parseTo);
 *       program.action(bind<SendOptions>(async (options, { args, signal, output }) => { … }));
 *     });
 *
 * Parsers of options may throw BallastError USAGE.
 * @param argv arguments without the program's name
 * @param build declares options, commands and actions
 * @returns exit status: 0 done (or help, or version), 1 failed, 2 wrong usage, 129, 130 or 143 after SIGHUP, SIGINT or
 *   SIGTERM; all output has left the process by then. Set it as `process.exitCode`.
 */
export async function runProgram(
  name: string,
  argv: readonly string[],
  build: (program: Command, bind: Bind) => void,
  streams: ProgramStreams = process,
): Promise<number> {
  const shell = new Shell(name, argv, streams);
  const status = await shell.run(argv, build);
  return shell.finish(status);
}

class Shell {
  readonly #name: string;
  readonly #streams: ProgramStreams;
  #output: Output;
  #interruption: Interruption | undefined;

  constructor(name: string, argv: readonly string[], streams: ProgramStreams) {
    this.#name = name;
    this.#streams = streams;
    // Wrong usage is reported before the options are known: look for the ones that say how.
    const end = argv.indexOf('--');
    const options = end < 0 ? argv : argv.slice(0, end);
    this.#output = this.#createOutput({ json: options.includes('--json'), debug: options.includes('--debug') });
  }

  async run(argv: readonly string[], build: (program: Command, bind: Bind) => void): Promise<number> {
    try {
      const program = this.#command();
      build(
        program,
        (action) =>
          async (...parameters) =>
            this.#act(action, parameters),
      );
      addCommonOptions(program);
      explainUsage(program, this.#name);
      await program.parseAsync([...argv], { from: 'user' });
      return 0;
    } catch (error) {
      if (isHelpOrVersion(error)) return 0;
      return this.#report(error);
    } finally {
      this.#interruption?.dispose();
    }
  }

  /** Waits until all output is out; what could not be written makes a success a failure. */
  async finish(status: number): Promise<number> {
    this.#output.close();
    await this.#output.flush();
    const failure = this.#output.failure;
    if (failure === undefined || status !== 0) return status;
    this.#output.error(failure);
    await this.#output.flush();
    return 1;
  }

  #command(): Command {
    const stdout = Sink.of(this.#streams.stdout);
    // Errors come as exceptions, and are written once, by #report.
    return new Command(this.#name).configureOutput({
      writeOut: (text) => {
        stdout.write(text);
      },
      writeErr: () => undefined,
    });
  }

  async #act<Options extends CommonOptions>(action: Action<Options>, parameters: unknown[]): Promise<void> {
    const command = parameters.at(-1);
    if (!(command instanceof Command)) throw new TypeError('commander passes the command last');
    refuseStray(command);
    refuseTwice(command);
    refuseEmpty(command);
    const options = optionsOf(command) as Options;
    this.#output = this.#createOutput(options);
    const interruption = new Interruption({
      onSignal: (signal) => {
        if (signal === 'SIGINT') this.#output.note('interrupted: winding up; once more ends at once');
      },
      exit: (status, error) => {
        if (error !== undefined) this.#output.error(error);
        this.#output.close();
        process.exit(status);
      },
    });
    this.#interruption = interruption;
    await action(options, {
      args: command.args,
      written: writtenTo(command),
      signal: interruption.signal,
      output: this.#output,
    });
    // A defect may have cost what the action did not wait for.
    if (interruption.crash !== undefined) throw interruption.crash;
  }

  #createOutput({ json = false, quiet = false, debug = false }: CommonOptions): Output {
    // Not all of `this.#streams`, which may be `process`: that would open stdin.
    const { stdout, stderr } = this.#streams;
    return createOutput({ program: this.#name, json, quiet, debug, stdout, stderr });
  }

  /** Says why the program failed; returns its exit status. */
  #report(thrown: unknown): number {
    const error = this.#interruption?.crash ?? this.#explained(thrown);
    this.#output.error(error);
    if (this.#interruption?.crash !== undefined) return 1;
    // After a signal any failure is its consequence: a connection that broke because it was being given up, say.
    return this.#interruption?.status ?? (error.code === ErrorCode.USAGE ? 2 : 1);
  }

  /** What an interface of Node.js throws on an aborted signal says less than the reason for it. */
  #explained(thrown: unknown): BallastError {
    const reason: unknown = this.#interruption?.signal.reason;
    const isAbort = thrown instanceof Error && thrown.name === 'AbortError';
    return isAbort && reason instanceof BallastError ? reason : BallastError.from(thrown);
  }
}

/**
 * The options of a command and of those that it belongs to. What was written wins over any default, the nearest first:
 * commander's optsWithGlobals would put a default of the program before what was written behind the command.
 */
function optionsOf(command: Command): object {
  const path: Command[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) path.unshift(at);
  const written = (at: Command): object =>
    Object.fromEntries(Object.entries(at.opts()).filter(([name]) => at.getOptionValueSource(name) !== 'default'));
  return Object.assign({}, ...path.map((at) => at.opts()), ...path.map(written)) as object;
}

/** Names of the options that were written behind a command or before it. */
function writtenTo(command: Command): ReadonlySet<string> {
  const names = new Set<string>();
  for (let at: Command | null = command; at !== null; at = at.parent) {
    for (const option of at.options) {
      if (at.getOptionValueSource(option.attributeName()) === 'cli') names.add(option.long ?? option.flags);
    }
  }
  return names;
}

/** @throws BallastError USAGE for an option before a command that does not have it: nothing would come of it */
function refuseStray(command: Command): void {
  const known = new Set(command.options.map((option) => option.attributeName()));
  for (let at = command.parent; at !== null; at = at.parent) {
    const parent = at;
    const stray = parent.options.find(
      (option) => parent.getOptionValueSource(option.attributeName()) === 'cli' && !known.has(option.attributeName()),
    );
    if (stray === undefined) continue;
    throw new BallastError(
      ErrorCode.USAGE,
      `${stray.long ?? stray.flags} is no option of ${command.name()}; leave it out, or see ${parent.name()} ${command.name()} --help`,
    );
  }
}

/** @throws BallastError USAGE for an option that was written before a command and behind it, with two values */
function refuseTwice(command: Command): void {
  const isWritten = (at: Command, name: string): boolean => at.getOptionValueSource(name) === 'cli';
  for (let at = command.parent; at !== null; at = at.parent) {
    const parent = at;
    const twice = command.options.find((option) => {
      const name = option.attributeName();
      if (!isWritten(parent, name) || !isWritten(command, name)) return false;
      return parent.getOptionValue(name) !== command.getOptionValue(name);
    });
    if (twice === undefined) continue;
    throw new BallastError(
      ErrorCode.USAGE,
      `${twice.long ?? twice.flags} was given before ${command.name()} and behind it, where only one could count; give it behind ${command.name()} only`,
    );
  }
}

/** @throws BallastError USAGE for an empty text, which is what becomes of a shell's variable that is not set */
function refuseEmpty(command: Command): void {
  const empty = (what: string): BallastError =>
    new BallastError(ErrorCode.USAGE, `${what} is empty; look for a variable that is not set`);
  if (command.args.includes('')) throw empty('the name of a file');
  for (let at: Command | null = command; at !== null; at = at.parent) {
    for (const option of at.options) {
      const value: unknown = at.getOptionValue(option.attributeName());
      if ([value].flat().includes('')) throw empty(`what ${option.long ?? option.flags} says`);
    }
  }
}

function addCommonOptions(command: Command): void {
  command
    .option('--json', 'print newline-delimited JSON events on stdout, for programs')
    .option('--quiet', 'print nothing but what was asked for, and errors')
    .option('--debug', 'print the stack and the causes with an error');
  for (const subcommand of command.commands) addCommonOptions(subcommand);
}
