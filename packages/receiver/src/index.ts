export { BallastError, ErrorCode } from '@ballast/shared/errors';
export type { ReceiveEvent, TransferResult } from '@ballast/shared/events';
export { receiveForever, receiveMemory } from './receive-memory.js';
export type { ReceiveOptions } from './receive-options.js';
