import { styleText } from 'node:util';
import ora from 'ora';

type Style = Parameters<typeof styleText>[0];

/** How a person watches: a spinner and colours on a terminal, plain lines elsewhere. */
export interface Stage {
  /** Shows what is going on while it is done, and then what came of it. */
  during<T>(
    doing: string,
    act: (update: (text: string) => void) => Promise<T>,
    came: (result: T) => string,
  ): Promise<T>;
  say(text?: string): void;
  style(style: Style, text: string): string;
}

/** The stage for this terminal, or for the lack of one. Colours also heed NO_COLOR (see no-color.org). */
export function openStage(out: NodeJS.WriteStream = process.stdout): Stage {
  const colours = out.isTTY && (process.env['NO_COLOR'] ?? '') === '';
  const style = (how: Style, text: string): string => (colours ? styleText(how, text) : text);
  const say = (text = ''): void => void out.write(`${text}\n`);
  return {
    say,
    style,
    async during(doing, act, came) {
      const mark = (symbol: string, how: Style, text: string): void => {
        say(`${style(how, symbol)} ${text}`);
      };
      // The terminal stays as it is: ctrl-C goes to the kernel, which tells this program and its children at once.
      const spinner = ora({
        text: doing,
        stream: out,
        discardStdin: false,
        color: colours ? 'cyan' : false,
        isEnabled: out.isTTY,
        isSilent: !out.isTTY,
      }).start();
      try {
        const result = await act((text) => (spinner.text = text));
        spinner.stop();
        mark('✔', 'green', came(result));
        return result;
      } catch (error) {
        spinner.stop();
        mark('✖', 'red', doing);
        throw error;
      }
    },
  };
}
