import { createRequire } from 'node:module';

/**
 * Loads a library that has native parts; the caller knows its type. By `require`, since for `import` Node first searches
 * the text of such a library for what it might export, which takes longer than loading it.
 */
export const nativeLibrary = createRequire(import.meta.url) as (name: string) => unknown;
