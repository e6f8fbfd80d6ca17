export { MemoryCells, type KindTotals, type PageKind } from './memory-cells.js';
export { pictureCapacity } from './memory-grid.js';
export { renderMemoryPicture, renderMemoryPictures, type NamedCells, type PictureStyle } from './memory-picture.js';
export { createOutput, type Output, type OutputOptions } from './output.js';
export { type OutputEvent } from './json-line.js';
export { type ProgressView } from './progress-text.js';
export {
  lazily,
  runProgram,
  type Action,
  type ActionContext,
  type Bind,
  type CommonOptions,
  type ProgramStreams,
} from './program.js';
export { describeResult } from './result.js';
export { tableMarkdown, tableText, tableWidth, type TextTable } from './table.js';
export { type TextStream } from './sink.js';
export { isInteractive, paint, terminalStyle, type Colour, type TextStyle } from './terminal.js';
export { printable } from './terminal-text.js';
export {
  MAX_SECONDS,
  formatBytes,
  formatCount,
  formatDuration,
  formatPercent,
  formatRate,
  parseCount,
  parseMilliseconds,
  parseRate,
  parseSeconds,
  parseSize,
} from './units.js';
