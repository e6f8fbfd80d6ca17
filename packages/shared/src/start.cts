import { readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Script, constants } from 'node:vm';
import { crc32 } from 'node:zlib';

/* CommonJS, as the bundles are: a program that begins with an ES module starts 4 ms later. */

/**
 * Starts one of the two programs, and sets its exit status.
 * @param bin path of the program's file in `bin`
 */
export async function startProgram(bin: string): Promise<void> {
  // A trace is asked for seldom, and reading the maps takes time.
  if (process.argv.includes('--debug')) process.setSourceMapsEnabled(true);
  // Until it is known: a program that ends because nothing is left to wait for has not done its work.
  process.exitCode = 1;
  const path = programModule(bin);
  const { main } = (path.endsWith(BUNDLE) ? loadBundle(path) : await import(pathToFileURL(path).href)) as {
    readonly main: (argv: readonly string[]) => Promise<number>;
  };
  process.exitCode = await main(process.argv.slice(2));
}

const BUNDLE = 'dist/program/main.bundle.cjs';

/**
 * The module of a program: `npm run build` bundles its hundred modules to one file in `dist/program`, which loads in
 * a third of the time. After `tsc --build` alone, as one does while working on them, that is older than the modules, and
 * not taken.
 * @param bin path of the program's file in `bin`
 */
export function programModule(bin: string): string {
  const folder = dirname(dirname(bin));
  const bundle = join(folder, BUNDLE);
  const builtAt = Math.max(
    ...[folder, dirname(__dirname)].map((path) => changedAt(join(path, 'tsconfig.tsbuildinfo'))),
  );
  return changedAt(bundle) > builtAt ? bundle : join(folder, 'dist/cli/main.js');
}

/** When a file was changed, in milliseconds; 0 where there is none, as the books of tsc in a published package. */
function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/**
 * Loads a bundle as `require` does, but with V8's code cache, if there is one that fits: what V8 had compiled of the bundle
 * by the end of a transfer when it was built, so that it need not do so again. code-cache.js makes it.
 * @param path of the bundle
 * @returns what the bundle exports
 */
export function loadBundle(path: string): unknown {
  const require = createRequire(path);
  // Node maps lines back, and counts what was run, only in what it has loaded itself.
  if (process.argv.includes('--debug') || process.env['NODE_V8_COVERAGE'] !== undefined) return require(path);
  const source = readFileSync(path);
  const script = new Script(`(function (exports, require, module, __filename, __dirname) {${source.toString()}\n})`, {
    filename: path,
    cachedData: fittingCache(path, source),
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const body = script.runInThisContext() as (...names: unknown[]) => void;
  const module = { exports: {} };
  body(module.exports, require, module, path, dirname(path));
  return module.exports;
}

/*
 * V8 itself refuses a cache of another version of V8, or of V8 with other flags, and compiles as if there was none. It does
 * not look at the rest: in Node 20 and 24 one byte that is wrong may end the process by SIGSEGV, and a cache of another
 * source that has the same length is taken. So four bytes behind the cache say what it belongs to, and that it is whole.
 */
const CHECKSUM_BYTES = 4;

/** The code cache of a bundle; undefined where there is none, or one that is not whole or not for this bundle and Node. */
function fittingCache(bundle: string, source: Buffer): Buffer | undefined {
  try {
    const file = readFileSync(cachePath(bundle));
    const cache = file.subarray(0, -CHECKSUM_BYTES);
    return file.readUInt32LE(cache.length) === cacheChecksum(cache, source) ? cache : undefined;
  } catch {
    return undefined;
  }
}

/** Where this Node's code cache of a bundle is: in the package, where only who may change the bundle can write. */
export function cachePath(bundle: string): string {
  return `${bundle}.${process.version}.cache`;
}

/** What is kept of a code cache: itself, and behind it four bytes with {@link cacheChecksum}, least significant first. */
export function sealedCache(cache: Buffer, source: Buffer): Buffer {
  const checksum = Buffer.alloc(CHECKSUM_BYTES);
  checksum.writeUInt32LE(cacheChecksum(cache, source));
  return Buffer.concat([cache, checksum]);
}

/** A checksum of a cache, the bundle that it is of, and the very Node that made it: builds of one version differ, too. */
function cacheChecksum(cache: Buffer, source: Buffer): number {
  const { size, mtimeMs } = statSync(process.execPath);
  return crc32(cache, crc32(source, crc32(`${process.version} ${process.arch} ${size} ${mtimeMs}`)));
}
