export { DEFAULT_PORT, formatAddress, isLoopback, parseAddress } from './address.js';
export type { Address } from './address.js';
export { Connection } from './connection.js';
export type { ConnectionOptions, Incoming, OutgoingFrame } from './connection.js';
export { accept, byDataEvents, dial } from './reads.js';
