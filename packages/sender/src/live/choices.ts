/** What to do with a guest that writes memory faster than it can be moved. */
export const NO_CONVERGENCE_ACTIONS = ['switch', 'throttle', 'fail'] as const;
export type NoConvergenceAction = (typeof NO_CONVERGENCE_ACTIONS)[number];

/** What becomes of the source's QEMU when its guest has gone. */
export const SOURCE_AFTER = ['pause', 'quit'] as const;
export type SourceAfter = (typeof SOURCE_AFTER)[number];

/** What a person has found out about the destination, where it cannot be asked. */
export const DESTINATION_FINDINGS = ['runs', 'gone'] as const;
export type DestinationFinding = (typeof DESTINATION_FINDINGS)[number];
