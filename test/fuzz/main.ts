import { parseArgs } from 'node:util';
import { PARTS, fuzz, isPart, type Part } from './fuzz.js';

/**
 *     npm run fuzz                                    a million cases and more, about half an hour
 *     npm run fuzz -- --part receiver --seed 7        one part, with other cases
 *
 * Ends with status 1 when something was found, and says how to see it again.
 */
const { values } = parseArgs({
  options: {
    part: { type: 'string' },
    cases: { type: 'string' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
  },
});

/** A case of the decoder takes microseconds, one of a session two real files and a few connections. */
const CASES: Readonly<Record<Part, number>> = {
  decoder: 1_000_000,
  receiver: 50_000,
  sender: 50_000,
  'receiver-channels': 5000,
  'sender-channels': 5000,
  'live-receiver': 5000,
  'live-sender': 2000,
};

const { part: only } = values;
if (only !== undefined && !isPart(only)) throw new Error(`--part must be one of ${PARTS.join(', ')}`);

for (const part of only === undefined ? PARTS : [only]) {
  const started = performance.now();
  const report = await fuzz({
    part,
    cases: Number(values.cases ?? CASES[part]),
    seed: Number(values.seed),
    from: Number(values.from),
    onProgress: (text) => {
      console.error(`${part}: ${text}`);
    },
  });
  const seconds = Math.round((performance.now() - started) / 1000);
  console.log(`${part}: ${report.cases} cases in ${seconds} s; how they ended: ${JSON.stringify(report.tally)}`);
  for (const { seed, index, error } of report.findings) {
    console.log(`finding: npm run fuzz -- --part ${part} --seed ${seed} --from ${index} --cases 1`);
    console.log(error);
    process.exitCode = 1;
  }
}
