import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

const run = promisify(execFile);
const PACKAGES = fileURLToPath(new URL('../../../packages/', import.meta.url));

for (const name of ['shared', 'sender', 'receiver']) {
  test(`what is published of ${name} is whole: its licence, sources for its maps, and no books of the compiler`, async (t) => {
    const folder = join(PACKAGES, name);
    const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: folder });
    const [packed] = JSON.parse(stdout) as { files: { path: string }[] }[];
    const paths = (packed?.files ?? []).map(({ path }) => path);
    t.true(paths.includes('LICENSE'));
    t.deepEqual(
      paths.filter((path) => path.endsWith('.tsbuildinfo')),
      [],
    );
    const maps = paths.filter((path) => path.endsWith('.map'));
    t.not(maps.length, 0);
    for (const path of maps) {
      const { sourcesContent } = JSON.parse(await readFile(join(folder, path), 'utf8')) as {
        sourcesContent?: (string | null)[];
      };
      t.true(
        sourcesContent?.every((content) => content !== null),
        path,
      );
    }
  });
}
