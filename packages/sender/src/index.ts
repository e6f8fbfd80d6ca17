export { BallastError, ErrorCode } from '@ballast/shared/errors';
export type { SendEvent, TransferResult } from '@ballast/shared/events';
export { parseBalloonOrigin } from './balloon/balloon-map.js';
export type { BalloonOrigin } from './balloon/balloon-map.js';
export { sendMemory } from './send-memory.js';
export type { SendOptions } from './send-memory.js';
export { ReadMethod } from './source/memory-source.js';
export { STRATEGY_NAMES } from './strategy.js';
export type { StrategyName } from './strategy.js';
