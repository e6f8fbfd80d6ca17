export { BallastError, ErrorCode } from '@ballast/shared/errors';
export type {
  LiveResult,
  LiveRound,
  MoveForecast,
  RecoveredEvent,
  SendEvent,
  TransferResult,
} from '@ballast/shared/events';
export { parseBalloonOrigin } from './balloon/balloon-map.js';
export type { BalloonOrigin } from './balloon/balloon-map.js';
export { CompressionChoice } from './compression/choice.js';
export { DESTINATION_FINDINGS, NO_CONVERGENCE_ACTIONS, SOURCE_AFTER } from './live/choices.js';
export type { DestinationFinding, NoConvergenceAction, SourceAfter } from './live/choices.js';
export { forecastMove, moveGuest } from './live/move-guest.js';
export type { MoveOptions } from './live/move-guest.js';
export { recoverGuest } from './live/recover.js';
export type { RecoverOptions } from './live/recover.js';
export { sendMemory } from './send-memory.js';
export type { SendOptions } from './send-memory.js';
export { ReadMethod } from './source/memory-source.js';
export { STRATEGY_NAMES } from './strategy.js';
export type { StrategyName } from './strategy.js';
export { evenProfile } from './trial/even-profile.js';
export type { MemoryShape } from './trial/even-profile.js';
export { predict } from './trial/model.js';
export type { LinkRates, MachineRates, ModelInput, Prediction } from './trial/model.js';
export { predictTrial } from './trial/predict-trial.js';
export type { PredictionOptions } from './trial/predict-trial.js';
export { runTrial } from './trial/trial.js';
export type { TrialCell } from './trial/setting.js';
export type { TrialEvent, TrialOptions } from './trial/trial.js';
export type { TrialReport } from './trial/trial-report.js';
export { digestMemory, mapMemory } from './survey.js';
export type { MemoryDigest, PageTotals, RegionMap, SurveyOptions } from './survey.js';
