import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/** A folder of packages/shared may import only what stands below it: cli > transport > protocol > integrity > memory > errors. */
const layer = (folder, forbidden) => ({
  files: [`packages/shared/src/${folder}/**/*.ts`],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: forbidden.map((name) => ({
          group: [`../${name}/*`, `../${name}`],
          message: `${folder} stands below ${name}`,
        })),
      },
    ],
  },
});

export default tseslint.config(
  { ignores: ['**/dist/**', 'coverage/**'] },
  eslint.configs.recommended,
  {
    files: ['**/*.ts', '**/*.cts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: 'only-allowed-literals' },
      ],
      eqeqeq: 'error',
    },
  },
  {
    files: ['**/*.js', '**/*.cjs'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly' } },
  },
  // Its package.json says so.
  {
    files: ['packages/*/bin/*.js'],
    languageOptions: { sourceType: 'commonjs', globals: { __filename: 'readonly' } },
  },
  layer('measure', ['memory', 'integrity', 'protocol', 'transport', 'cli']),
  layer('compression', ['memory', 'integrity', 'protocol', 'transport', 'cli']),
  layer('memory', ['compression', 'integrity', 'protocol', 'transport', 'cli']),
  layer('integrity', ['protocol', 'transport', 'cli']),
  layer('protocol', ['transport', 'cli']),
  layer('transport', ['cli']),
);
