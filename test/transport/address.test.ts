import test from 'ava';
import { fc, testProp } from '@fast-check/ava';
import { BallastError, ErrorCode } from '@ballast/shared/errors';
import { DEFAULT_PORT, formatAddress, isLoopback, parseAddress } from '@ballast/shared/transport';

for (const [text, host, port] of [
  ['10.0.0.1:7000', '10.0.0.1', 7000],
  ['10.0.0.1', '10.0.0.1', 7700],
  ['host-b:1', 'host-b', 1],
  ['host-b', 'host-b', 7700],
  ['host-b.example.org:65535', 'host-b.example.org', 65535],
  ['localhost', 'localhost', 7700],
  ['[::1]:7000', '::1', 7000],
  ['[::1]', '::1', 7700],
  ['[fe80::1%eth0]:7000', 'fe80::1%eth0', 7000],
  ['[::ffff:127.0.0.1]:7000', '::ffff:127.0.0.1', 7000],
] as const) {
  test(`${text} is an address`, (t) => {
    t.deepEqual(parseAddress(text, 1), { host, port });
  });
}

test('port 0 is an address where any free port will do', (t) => {
  t.deepEqual(parseAddress('127.0.0.1:0', 0), { host: '127.0.0.1', port: 0 });
});

for (const { text, message } of [
  { text: '', message: /'' is no address; expected HOST:PORT/ },
  { text: ':7700', message: /is no address/ },
  { text: 'host-b:', message: /is no address/ },
  { text: 'host-b:seven', message: /is no address/ },
  { text: 'host-b:-1', message: /is no address/ },
  { text: 'host-b:7.5', message: /is no address/ },
  { text: 'host-b:7700:1', message: /is no address/ },
  { text: 'host b:7700', message: /is no address/ },
  { text: ' host-b', message: /is no address/ },
  { text: 'host-b\n', message: /is no address/ },
  { text: '::1', message: /write an IPv6 address in brackets: \[::1\]:7700/ },
  { text: 'fe80::1', message: /in brackets: \[fe80::1\]:7700/ },
  { text: '[10.0.0.1]:7700', message: /is no address/ },
  { text: '[host-b]:7700', message: /is no address/ },
  { text: '[]:7700', message: /is no address/ },
  { text: '[::1', message: /is no address/ },
  { text: '::1]:7700', message: /is no address/ },
  { text: '[::1]7700', message: /is no address/ },
  { text: 'host-b:0', message: /has port 0; expected 1 to 65535/ },
  { text: 'host-b:65536', message: /has port 65536; expected 1 to 65535/ },
  { text: 'host-b:123456', message: /is no address/ },
]) {
  test(`'${text.replace('\n', '\\n')}' is refused as an address`, (t) => {
    t.throws(() => parseAddress(text, 1), { instanceOf: BallastError, code: ErrorCode.USAGE, message });
  });
}

testProp(
  'an address that is written down is read as it was',
  [fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()), fc.integer({ min: 0, max: 65535 })],
  (t, host, port) => {
    t.deepEqual(parseAddress(formatAddress({ host, port }), 0), { host, port });
  },
);

testProp('whatever is given, it is an address or wrong usage', [fc.string()], (t, text) => {
  try {
    const { host, port } = parseAddress(text, 0);
    t.true(host.length > 0 && port >= 0 && port <= 65535);
  } catch (error) {
    t.is(BallastError.from(error).code, ErrorCode.USAGE);
  }
});

test('the default port is 7700', (t) => {
  t.is(DEFAULT_PORT, 7700);
});

for (const host of ['localhost', '127.0.0.1', '127.8.9.10', '::1', '::ffff:127.0.0.1', '::FFFF:127.0.0.1']) {
  test(`${host} can be reached from this machine only`, (t) => {
    t.true(isLoopback(host));
  });
}

for (const host of [
  '0.0.0.0',
  '::',
  '10.0.0.1',
  'host-b',
  '127.example.org',
  'localhost.example.org',
  '::ffff:10.0.0.1',
]) {
  test(`${host} counts as reachable from elsewhere`, (t) => {
    t.false(isLoopback(host));
  });
}
