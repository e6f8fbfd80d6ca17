import type { ControlOf } from '@ballast/shared/protocol';

/**
 * Whether a hello does not begin a move, but asks what became of one that was committed (docs/protocol.md, section 7). A
 * sender that moves a guest says that at least one byte may be needed.
 */
export function isQuestion({ live, dataBytesAtMost }: ControlOf<'hello'>): boolean {
  return live && dataBytesAtMost === 0;
}
