export { DEFAULT_PORT, formatAddress, isLoopback, parseAddress } from './address.js';
export type { Address } from './address.js';
export { Connection } from './connection.js';
export type { ConnectionOptions, Incoming, OutgoingFrame } from './connection.js';
export { MIN_BANDWIDTH, paceSocket } from './pacing.js';
export { accept, byDataEvents, dial } from './reads.js';
export type { TlsDialOptions } from './reads.js';
export { certificateNames, explainHandshake, explainVerification, readTlsIdentity } from './tls-identity.js';
export type { TlsSide } from './tls-identity.js';
