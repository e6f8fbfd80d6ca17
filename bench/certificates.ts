import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** Makes a folder with an authority, and certificates of it for both sides on this machine, as docs/certificates.md does. */
export async function makeCertificates(folder: string): Promise<string> {
  const at = (name: string): string => join(folder, name);
  await mkdir(folder, { mode: 0o700 });
  await run('openssl', [
    ...['req', '-x509', ...CURVE, '-days', '2', '-subj', '/CN=Ballast bench authority'],
    ...['-keyout', at('ca-key.pem'), '-out', at('ca-cert.pem')],
  ]);
  for (const [side, usage] of [
    ['server', 'serverAuth'],
    ['client', 'clientAuth'],
  ] as const) {
    await run('openssl', [
      ...['req', '-new', ...CURVE, '-subj', `/CN=${side}`],
      ...['-keyout', at(`${side}-key.pem`), '-out', at(`${side}.csr`)],
    ]);
    const extensions = `basicConstraints = critical, CA:FALSE\nextendedKeyUsage = ${usage}\nsubjectAltName = IP:127.0.0.1\n`;
    await writeFile(at(`${side}.ext`), extensions);
    await run('openssl', [
      ...['x509', '-req', '-in', at(`${side}.csr`), '-days', '2', '-extfile', at(`${side}.ext`)],
      ...['-CA', at('ca-cert.pem'), '-CAkey', at('ca-key.pem'), '-CAcreateserial', '-out', at(`${side}-cert.pem`)],
    ]);
  }
  return folder;
}
