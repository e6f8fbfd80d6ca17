import { execFile } from 'node:child_process';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Why there can be no certificates here; undefined when there can. */
export async function whyNoOpenssl(): Promise<string | undefined> {
  try {
    await run('openssl', ['version']);
    return undefined;
  } catch {
    return 'openssl is not installed';
  }
}

/** A certificate and its key, as paths of PEM files. */
export interface Issued {
  readonly cert: string;
  readonly key: string;
}

export interface Subject {
  readonly commonName: string;
  readonly usage: 'serverAuth' | 'clientAuth';
  /** Subject alternative names as openssl writes them: "DNS:host-b", "IP:127.0.0.1". */
  readonly alternatives?: readonly string[];
  /** -1 for one that expired yesterday. */
  readonly days?: number;
}

/** Elliptic curves: a key takes a millisecond. */
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'] as const;

/** A certificate authority in a folder. */
export class Authority {
  readonly cert: string;
  readonly #key: string;
  readonly #folder: string;
  #issued = 0;

  private constructor(folder: string) {
    this.#folder = folder;
    this.cert = join(folder, 'ca.pem');
    this.#key = join(folder, 'ca-key.pem');
  }

  static async make(folder: string, commonName: string): Promise<Authority> {
    await mkdir(folder, { recursive: true });
    const authority = new Authority(folder);
    await run('openssl', [
      ...['req', '-x509', ...NEW_KEY, '-days', '30', '-subj', `/CN=${commonName}`],
      ...['-keyout', authority.#key, '-out', authority.cert],
    ]);
    return authority;
  }

  async issue({ commonName, usage, alternatives = [], days = 30 }: Subject): Promise<Issued> {
    const stem = join(this.#folder, `issued-${++this.#issued}`);
    const [cert, key, request, extensions] = [`${stem}.pem`, `${stem}-key.pem`, `${stem}.csr`, `${stem}.ext`];
    await writeFile(
      extensions,
      [
        'basicConstraints=critical,CA:FALSE',
        `extendedKeyUsage=${usage}`,
        ...(alternatives.length === 0 ? [] : [subjectAltName(alternatives)]),
      ].join('\n'),
    );
    await run('openssl', ['req', '-new', ...NEW_KEY, '-subj', `/CN=${commonName}`, '-keyout', key, '-out', request]);
    await run('openssl', [
      ...['x509', '-req', '-in', request, '-CA', this.cert, '-CAkey', this.#key, '-CAcreateserial'],
      ...['-days', String(days), '-extfile', extensions, '-out', cert],
    ]);
    return { cert, key };
  }
}

/** A section of its own, since a name may hold the comma that separates names in a line. */
function subjectAltName(alternatives: readonly string[]): string {
  const entries = alternatives.map((name, index) => {
    const [kind = '', ...rest] = name.split(':');
    return `${kind}.${index}="${rest.join(':')}"`;
  });
  return ['subjectAltName=@alternatives', '[alternatives]', ...entries].join('\n');
}

/** What a directory for --tls-dir is to hold. */
export interface TlsFiles {
  /** Whom this side trusts. */
  readonly ca: string;
  readonly server?: Issued;
  readonly client?: Issued;
}

/** Makes a directory for --tls-dir. */
export async function tlsDirectory(directory: string, { ca, server, client }: TlsFiles): Promise<string> {
  await mkdir(directory, { recursive: true });
  await copyFile(ca, join(directory, 'ca-cert.pem'));
  for (const [side, issued] of [
    ['server', server],
    ['client', client],
  ] as const) {
    if (issued === undefined) continue;
    await copyFile(issued.cert, join(directory, `${side}-cert.pem`));
    await copyFile(issued.key, join(directory, `${side}-key.pem`));
  }
  return directory;
}

/** What most scenarios need: an authority, a receiver that is 127.0.0.1 and host-b.test, and a sender. */
export interface Certificates {
  readonly folder: string;
  readonly authority: Authority;
  readonly server: Issued;
  readonly client: Issued;
  /** For --tls-dir of the receiver. */
  readonly receiverDirectory: string;
  /** For --tls-dir of the sender. */
  readonly senderDirectory: string;
}

export async function makeCertificates(folder: string): Promise<Certificates> {
  const authority = await Authority.make(join(folder, 'authority'), 'Ballast test authority');
  const [server, client] = [
    await authority.issue({
      commonName: 'host-b.test',
      usage: 'serverAuth',
      alternatives: ['DNS:host-b.test', 'IP:127.0.0.1'],
    }),
    await authority.issue({ commonName: 'host-a.test', usage: 'clientAuth', alternatives: ['DNS:a.alias.test'] }),
  ];
  return {
    folder,
    authority,
    server,
    client,
    receiverDirectory: await tlsDirectory(join(folder, 'host-b'), { ca: authority.cert, server }),
    senderDirectory: await tlsDirectory(join(folder, 'host-a'), { ca: authority.cert, client }),
  };
}
