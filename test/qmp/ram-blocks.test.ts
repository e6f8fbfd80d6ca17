import test from 'ava';
import { ErrorCode } from '@ballast/shared/errors';
import { parseRamBlocks } from '@ballast/shared/qmp';

/** What QEMU 7.2 answers to x-query-ramblock. */
const QEMU_7 = `              Block Name    PSize              Offset               Used              Total
                    ram0    4 KiB  0x0000000000000000 0x0000000020000000 0x0000000020000000
    /rom@etc/acpi/tables    4 KiB  0x0000000020080000 0x0000000000020000 0x0000000000200000
                vga.vram    4 KiB  0x0000000020300000 0x0000000001000000 0x0000000001000000
`;
/** Newer versions say where a block lies, and whether it can be written. Huge pages have larger sizes. */
const QEMU_8 = `              Block Name    PSize              Offset               Used              Total                HVA  RO
          /objects/mem 0    2 MiB  0x0000000000000000 0x0000010000000000 0x0000010000000000 0x00007f8c5fe00000  rw
`;

test('every block is read, with what it uses and may grow to', (t) => {
  t.deepEqual(parseRamBlocks(QEMU_7), [
    { name: 'ram0', usedBytes: 2 ** 29, totalBytes: 2 ** 29 },
    { name: '/rom@etc/acpi/tables', usedBytes: 2 ** 17, totalBytes: 2 ** 21 },
    { name: 'vga.vram', usedBytes: 2 ** 24, totalBytes: 2 ** 24 },
  ]);
});

test('columns that newer versions add are left alone', (t) => {
  t.deepEqual(parseRamBlocks(QEMU_8), [{ name: '/objects/mem 0', usedBytes: 2 ** 40, totalBytes: 2 ** 40 }]);
});

test('a line that is not understood is refused, since a block might be forgotten', (t) => {
  t.throws(() => parseRamBlocks(`${QEMU_7}something new\n`), { code: ErrorCode.QMP, message: /something new/ });
});
