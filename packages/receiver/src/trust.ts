import type { TLSSocket } from 'node:tls';
import { certificateNames, explainVerification } from '@ballast/shared/transport';

/**
 * Why a sender's certificate does not let it in, in words; undefined when it does.
 * @param allowedNames names of which it must have one; empty for every certificate that the authority issued
 */
export function distrust(socket: TLSSocket, allowedNames: readonly string[]): string | undefined {
  const certificate = socket.getPeerCertificate();
  if (Object.keys(certificate).length === 0)
    return 'the sender has no certificate; give it --tls-dir with client-cert.pem and client-key.pem';
  if (!socket.authorized) return `the sender's certificate ${explainVerification(String(socket.authorizationError))}`;
  const names = certificateNames(certificate);
  if (allowedNames.length === 0 || names.some((name) => allowedNames.includes(name))) return undefined;
  return `the sender's certificate is for ${names.join(', ') || 'no name'}, which --tls-allow does not name`;
}
