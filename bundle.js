import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { build } from 'rolldown';

/** Bundles a program of what tsc made of it: a file for its main thread, and one for each kind of other threads. */
async function bundle(name) {
  const modules = `packages/${name}/dist`;
  const program = `${modules}/program`;
  rmSync(program, { recursive: true, force: true });
  const threads = readdirSync(modules, { recursive: true }).filter((path) => path.endsWith('worker.js'));
  for (const path of ['cli/main.js', ...threads]) {
    const thread = basename(path, '.js');
    await build({
      input: { [thread]: `${modules}/${path}` },
      platform: 'node',
      // By its other name msgpackr comes without the search for an optional native part.
      resolve: { alias: { msgpackr: 'msgpackr/pack' } },
      plugins: [outputOfTsc],
      output: {
        dir: program,
        entryFileNames: '[name].bundle.cjs',
        // As one script of CommonJS, which V8 can keep compiled. What was loaded by `import()` is then evaluated by it.
        format: 'cjs',
        codeSplitting: false,
        sourcemap: true,
        // Names are as they were: those of classes are seen in messages.
        minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
      },
    });
    if (thread !== 'main') {
      writeFileSync(
        `${program}/${thread}.cjs`,
        `require('@ballast/shared/start').loadBundle(require.resolve('./${thread}.bundle.cjs'));\n`,
      );
    }
  }
}

/** With its source maps, so that a stack names the lines that were written; and threads start from CommonJS, too. */
const outputOfTsc = {
  name: 'output of tsc',
  load: {
    filter: { id: /packages\/\w+\/dist\/.*\.js$/ },
    handler: (id) => ({
      code: readFileSync(id, 'utf8').replace(/(?<=new Worker\(new URL\('\.\/[\w-]+\.)js(?=')/g, 'cjs'),
      map: JSON.parse(readFileSync(`${id}.map`, 'utf8')),
    }),
  },
};

await Promise.all(['sender', 'receiver'].map(bundle));
