import { readFileSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { build } from 'rolldown';

/** Bundles a program of what tsc made of it, for its main thread and for each kind of other threads. */
function program(name) {
  const modules = `packages/${name}/dist`;
  const threads = readdirSync(modules, { recursive: true })
    .filter((path) => path.endsWith('worker.js') && !path.startsWith('program/'))
    .map((path) => [basename(path, '.js'), `${modules}/${path}`]);
  return {
    input: { main: `${modules}/cli/main.js`, ...Object.fromEntries(threads) },
    platform: 'node',
    // Without the condition `node`, msgpackr comes without the search for an optional native part.
    resolve: { conditionNames: ['import', 'default'] },
    plugins: [sourceMapsOfTsc],
    output: { dir: `${modules}/program`, cleanDir: true, sourcemap: true },
  };
}

/** So that a stack names the lines that were written. */
const sourceMapsOfTsc = {
  name: 'source maps of tsc',
  load: {
    filter: { id: /packages\/\w+\/dist\/.*\.js$/ },
    handler: (id) => ({ code: readFileSync(id, 'utf8'), map: JSON.parse(readFileSync(`${id}.map`, 'utf8')) }),
  },
};

await build([program('sender'), program('receiver')]);
