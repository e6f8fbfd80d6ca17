const { readFileSync, renameSync, writeFileSync } = require('node:fs');
const vm = require('node:vm');
const { threadId } = require('node:worker_threads');
const { cachePath, sealedCache } = require('@ballast/shared/start');

/*
 * code-cache.js loads this into a program before anything else, and into its threads: when one ends well, what V8 has
 * compiled of its bundle is written beside it. The programs themselves never write a cache.
 */
vm.Script = class extends vm.Script {
  constructor(source, options) {
    super(source, options);
    const bundle = options.filename;
    process.once('exit', (status) => {
      if (status !== 0) return;
      // Threads of one kind end at the same time, and write the same file.
      const own = `${bundle}.${threadId}`;
      writeFileSync(own, sealedCache(this.createCachedData(), readFileSync(bundle)));
      renameSync(own, cachePath(bundle));
    });
  }
};
