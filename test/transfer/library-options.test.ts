import { join } from 'node:path';
import test from 'ava';
import { receiveMemory, type ReceiveOptions } from '@ballast/receiver';
import { sendMemory, type SendOptions } from '@ballast/sender';
import { temporaryFolder } from '../support/folder.js';
import { Fill, writeMemoryFile } from '../support/memory-file.js';

/** Nobody needs to listen where the options are refused first. */
const NOWHERE = { host: '127.0.0.1', port: 9 };

const SEND: readonly (readonly [string, Partial<SendOptions>, RegExp])[] = [
  ['a port beyond all ports', { to: { host: '127.0.0.1', port: 70_000 } }, /has port 70000; expected 1 to 65535/],
  ['port 0', { to: { host: '127.0.0.1', port: 0 } }, /has port 0; expected 1 to 65535/],
  ['an endless timeout, which a timer takes for none', { timeoutMs: Infinity }, /a timeout of Infinity ms/],
  ['a timeout that is no number', { timeoutMs: NaN }, /a timeout of NaN ms/],
  ['a retry that is no number', { retryMs: NaN }, /tried again for NaN ms/],
];

for (const [what, options, sentence] of SEND) {
  test(`sendMemory refuses ${what}`, async (t) => {
    const folder = await temporaryFolder(t);
    const source = join(folder, 'guest.mem');
    writeMemoryFile(source, [{ fill: Fill.data, pages: 4 }]);
    const sending = sendMemory({ files: [source], to: NOWHERE, ...options });
    await t.throwsAsync(sending, { name: 'BallastError', code: 'E_USAGE', message: sentence });
  });
}

const RECEIVE: readonly (readonly [string, Partial<ReceiveOptions>, RegExp])[] = [
  ['a port beyond all ports', { listen: { host: '127.0.0.1', port: 70_000 } }, /has port 70000; expected 0 to 65535/],
  ['an endless timeout, which a timer takes for none', { timeoutMs: Infinity }, /a timeout of Infinity ms/],
  ['a timeout of nothing', { timeoutMs: 0 }, /a timeout of 0 ms/],
];

for (const [what, options, sentence] of RECEIVE) {
  test(`receiveMemory refuses ${what}`, async (t) => {
    const folder = await temporaryFolder(t);
    const copy = join(folder, 'copy.mem');
    const receiving = receiveMemory({ files: [copy], listen: { host: '127.0.0.1', port: 0 }, ...options });
    await t.throwsAsync(receiving, { name: 'BallastError', code: 'E_USAGE', message: sentence });
  });
}
