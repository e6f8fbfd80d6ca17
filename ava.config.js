export default {
  files: ['test/dist/**/*.test.js'],
  // A process for each file: a thread that does not end, in native code perhaps, cannot be ended by anybody, and the tests
  // count the descriptors and threads of their process.
  workerThreads: false,
  // Much of a test's time is waiting for a link, a timeout or a guest.
  concurrency: 3,
  // More than the longest timeout of a test: if one of those still holds when this is over, ava never looks again.
  timeout: '5m',
};
