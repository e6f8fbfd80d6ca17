import { statSync } from 'node:fs';

/**
 * Starts one of the two programs, and sets its exit status.
 * @param bin URL of the program's file in `bin`
 */
export async function startProgram(bin: string): Promise<void> {
  // A trace is asked for seldom, and reading the maps takes time.
  if (process.argv.includes('--debug')) process.setSourceMapsEnabled(true);
  const { main } = (await import(programModule(bin).href)) as {
    readonly main: (argv: readonly string[]) => Promise<number>;
  };
  process.exitCode = await main(process.argv.slice(2));
}

/**
 * The module of a program: `npm run build` bundles its hundred modules to the few files of `dist/program`, which load in
 * less than half of the time. After `tsc --build` alone, as one does while working on them, those are older than the
 * modules, and not taken.
 * @param bin URL of the program's file in `bin`
 */
export function programModule(bin: string): URL {
  const bundle = new URL('../dist/program/main.js', bin);
  const builtAt = Math.max(...[bin, import.meta.url].map((url) => changedAt(new URL('../tsconfig.tsbuildinfo', url))));
  return changedAt(bundle) > builtAt ? bundle : new URL('../dist/cli/main.js', bin);
}

/** When a file was changed, in milliseconds; 0 where there is none, as the books of tsc in a published package. */
function changedAt(file: URL): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
