import { X509Certificate } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext, type PeerCertificate, type SecureContextOptions } from 'node:tls';
import { BallastError, ErrorCode, systemCode } from '../errors.js';

/** Which side of the connection the certificate is for; it names the files. */
export type TlsSide = 'server' | 'client';

/** The suites of TLS 1.3, the fastest on processors with instructions for AES first; see docs/decisions.md. */
const CIPHERS = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'].join(':');

/**
 * Who this side is and whom it trusts, as Node's TLS wants it: TLS 1.3 and nothing older.
 * @param directory has ca-cert.pem, SIDE-cert.pem and SIDE-key.pem, the names that QEMU, libvirt and nbdkit use
 * @throws BallastError TLS when a file is missing, unreadable or no certificate or key
 */
export function readTlsIdentity(directory: string, side: TlsSide): SecureContextOptions {
  const identity: SecureContextOptions = {
    ca: readCertificate(join(directory, 'ca-cert.pem')),
    cert: readCertificate(join(directory, `${side}-cert.pem`)),
    key: readPem(join(directory, `${side}-key.pem`)),
    minVersion: 'TLSv1.3',
    ciphers: CIPHERS,
  };
  try {
    createSecureContext(identity);
  } catch (error) {
    throw new BallastError(
      ErrorCode.TLS,
      `the TLS files of ${directory} do not work together (${error instanceof Error ? error.message : 'unknown reason'}); ${side}-key.pem must be the unencrypted key of ${side}-cert.pem`,
      { cause: error },
    );
  }
  return identity;
}

/**
 * Node takes an authority that is no certificate without a word, and then trusts nobody; of several it takes those before
 * the first that is damaged.
 */
function readCertificate(path: string): Buffer {
  const pem = readPem(path);
  const blocks = pem.toString('latin1').split(/(?=-----BEGIN )/);
  const certificates = blocks.filter((block) => /^-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/.test(block));
  if (certificates.length === 0) {
    throw new BallastError(
      ErrorCode.TLS,
      `${path} holds no certificate; expected one in PEM, which begins with '-----BEGIN CERTIFICATE-----'`,
    );
  }
  for (const [index, certificate] of certificates.entries()) {
    try {
      new X509Certificate(certificate);
    } catch (error) {
      const which =
        certificates.length === 1 ? 'the certificate' : `certificate ${index + 1} of ${certificates.length}`;
      throw new BallastError(
        ErrorCode.TLS,
        `${which} in ${path} is damaged, or cut short (${error instanceof Error ? error.message : 'unknown reason'}); copy it there again`,
        { cause: error },
      );
    }
  }
  return pem;
}

function readPem(path: string): Buffer {
  try {
    return readRegularFile(path);
  } catch (error) {
    if (error instanceof BallastError) throw error;
    const code = systemCode(error);
    const what = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? 'unknown error'})`;
    throw unusable(path, what, error);
  }
}

/** Opened without waiting: nobody may ever write into a FIFO, and no signal ends a process that waits in open(2). */
function readRegularFile(path: string): Buffer {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!fstatSync(fd).isFile()) throw unusable(path, 'is not a regular file');
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

function unusable(path: string, what: string, cause?: unknown): BallastError {
  return new BallastError(
    ErrorCode.TLS,
    `${path} ${what}; --tls-dir expects ca-cert.pem, and a certificate and key for this side`,
    { cause },
  );
}

/** What a verification error of OpenSSL means, in words. */
export function explainVerification(code: string): string {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return 'has expired';
    case 'CERT_NOT_YET_VALID':
      return 'is not valid yet (check the clocks)';
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'CERT_SIGNATURE_FAILURE':
      return 'was not issued by the authority in ca-cert.pem of the side that checks it';
    case 'INVALID_PURPOSE':
      return 'was issued for another purpose (a server needs serverAuth, a client clientAuth)';
    case 'CERT_REVOKED':
      return 'was revoked';
    default:
      return `cannot be verified (${code})`;
  }
}

/** What a failed handshake means, in words; undefined when it is no matter of TLS. */
export function explainHandshake(error: Error): string | undefined {
  const code = systemCode(error) ?? '';
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return error.message;
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return 'it did not finish the TLS handshake in time';
  if (code === 'ERR_SSL_HTTP_REQUEST') return 'the other side speaks HTTP';
  if (
    /ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNKNOWN_PROTOCOL|BAD_RECORD_TYPE|RECORD_LAYER_FAILURE|UNEXPECTED_MESSAGE)/.test(
      code,
    )
  ) {
    return 'the other side does not speak TLS; give both sides the same TLS options';
  }
  if (/ERR_SSL_(UNSUPPORTED_PROTOCOL|TLSV1_ALERT_PROTOCOL_VERSION)/.test(code))
    return 'the other side does not speak TLS 1.3';
  if (/CERTIFICATE_REQUIRED/.test(code)) return 'the other side wants a certificate, and none was given';
  if (/ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_EXPIRED|CERTIFICATE_UNKNOWN|DECRYPT_ERROR)/.test(code)) {
    return `the other side refused this side's certificate (${code
      .replace(/^ERR_SSL_\w*ALERT_/, '')
      .toLowerCase()
      .replaceAll('_', ' ')})`;
  }
  if (code.startsWith('ERR_SSL_')) return `the TLS handshake failed (${code})`;
  return undefined;
}

/** The names that a certificate is for: its common name and its DNS names. */
export function certificateNames(certificate: PeerCertificate): string[] {
  const { CN: common } = certificate.subject as { CN?: string | string[] };
  return [...new Set([...(common === undefined ? [] : [common].flat()), ...alternativesOf(certificate, 'DNS:')])];
}

/** Names and addresses that a certificate is for, in words for a message. */
export function describeSubject(certificate: PeerCertificate): string {
  const names = [...certificateNames(certificate), ...alternativesOf(certificate, 'IP Address:')];
  return names.length === 0 ? 'no name' : [...new Set(names)].join(', ');
}

/** Subject alternative names of a kind. Node separates them by commas, and escapes a comma within one. */
function alternativesOf({ subjectaltname = '' }: PeerCertificate, kind: 'DNS:' | 'IP Address:'): string[] {
  return subjectaltname
    .split(', ')
    .filter((name) => name.startsWith(kind))
    .map((name) => name.slice(kind.length));
}
