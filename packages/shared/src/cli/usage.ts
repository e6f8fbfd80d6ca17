import { CommanderError, InvalidArgumentError, type Argument, type Command, type Option } from 'commander';
import { BallastError, ErrorCode } from '../errors.js';

/**
 * Makes wrong usage of `command` and of all its subcommands a BallastError USAGE of one sentence. A parser of an option
 * or argument may throw InvalidArgumentError or BallastError USAGE that says what was expected; the option's name is
 * put before it. The end after --help and --version stays a CommanderError with exitCode 0.
 * @param path how the command is called: "ballast-send map"
 */
export function explainUsage(command: Command, path: string): void {
  command.exitOverride((error) => {
    throw error.exitCode === 0 ? error : usageError(error, path);
  });
  for (const option of command.options) explainParser(option, option.long ?? option.flags);
  for (const argument of command.registeredArguments) explainParser(argument, argument.name());
  for (const subcommand of command.commands) explainUsage(subcommand, `${path} ${subcommand.name()}`);
}

function explainParser(parsed: Option | Argument, name: string): void {
  const parse = parsed.parseArg;
  if (parse === undefined) return;
  parsed.parseArg = (value, previous) => {
    try {
      return parse(value, previous);
    } catch (error) {
      throw valueError(error, parsed, name, value);
    }
  };
}

function valueError(error: unknown, parsed: Option | Argument, name: string, value: string): unknown {
  const isExpected =
    error instanceof InvalidArgumentError || (error instanceof BallastError && error.code === ErrorCode.USAGE);
  if (!isExpected) return error;
  let message = `${name}: ${error.message}`;
  if (parsed.argChoices !== undefined) {
    message = `${name} cannot be '${value}'; expected ${oneOf(parsed.argChoices)}`;
  } else if (!error.message.includes(value)) {
    message = `${name} '${value}': ${error.message}`;
  }
  return new BallastError(ErrorCode.USAGE, message, { cause: error });
}

/** "a", "a or b", "a, b or c". */
function oneOf(choices: readonly string[]): string {
  const last = choices.at(-1) ?? '';
  return choices.length < 2 ? last : `${choices.slice(0, -1).join(', ')} or ${last}`;
}

/** Commander's message of one or two lines as a sentence of ours. */
function usageError(error: CommanderError, path: string): BallastError {
  const help = `see ${path} --help`;
  if (error.code === 'commander.help') return new BallastError(ErrorCode.USAGE, `no command given; ${help}`);
  const [first = '', ...suggestion] = error.message.split('\n');
  const said = first
    .replace(/^error: /, '')
    .replace(/^option '.*?(--\S+)(.*)' argument missing$/, 'option $1 needs a value:$2')
    .replace(/^required option '.*?(--\S+).*' not specified$/, 'option $1 is required')
    .replace(/^(too many arguments.*?)\. Expected (.*)\.$/, '$1: expected $2');
  const hint = /^\(Did you mean (.*)\?\)$/.exec(suggestion.join(' '))?.[1];
  return new BallastError(ErrorCode.USAGE, hint === undefined ? `${said}; ${help}` : `${said}; did you mean ${hint}?`);
}

/** Whether commander ended because it did what was asked: it printed the help or the version. */
export function isHelpOrVersion(error: unknown): boolean {
  return error instanceof CommanderError && error.exitCode === 0;
}
