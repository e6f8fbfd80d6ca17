import type { CompressionChoice } from '../compression/choice.js';
import type { StrategyName } from '../strategy.js';

/** What a strategy was measured under. */
export interface Setting {
  /** Bytes a second that the sender allowed itself; null for no limit. */
  readonly bandwidth: number | null;
  /** Connections that carry pages; null where the sender chose. */
  readonly channels: number | null;
  readonly compress: CompressionChoice;
}

/** One combination of a trial. */
export interface TrialCell extends Setting {
  readonly strategy: StrategyName;
}

export function isSameSetting(a: Setting, b: Setting): boolean {
  return a.bandwidth === b.bandwidth && a.channels === b.channels && a.compress === b.compress;
}

/** The settings that cells were measured under, each once, in their order. */
export function settingsOf(cells: readonly Setting[]): Setting[] {
  return cells.filter((cell, index) => cells.findIndex((other) => isSameSetting(cell, other)) === index);
}

/** A setting in words, as far as it differs among `all`: "1 Gbit/s, 2 channels"; "" where nothing differs. */
export function settingLabel(setting: Setting, all: readonly Setting[]): string {
  const differs = (of: (one: Setting) => unknown): boolean => new Set(all.map(of)).size > 1;
  return [
    ...(differs(({ bandwidth }) => bandwidth) ? [formatBandwidth(setting.bandwidth)] : []),
    ...(differs(({ channels }) => channels) ? [formatChannels(setting.channels)] : []),
    ...(differs(({ compress }) => compress) ? [formatCompress(setting.compress)] : []),
  ].join(', ');
}

/** "bitmap", "bitmap at 1 Gbit/s", "bitmap, 2 channels": what is not usual for a trial. */
export function cellLabel(cell: TrialCell): string {
  return [
    cell.bandwidth === null ? cell.strategy : `${cell.strategy} at ${formatBandwidth(cell.bandwidth)}`,
    ...(cell.channels === 1 ? [] : [formatChannels(cell.channels)]),
    ...(cell.compress === 'none' ? [] : [formatCompress(cell.compress)]),
  ].join(', ');
}

/** A bandwidth as networks are measured, decimal bits: "1 Gbit/s". @param bytesPerSecond null for no limit */
export function formatBandwidth(bytesPerSecond: number | null): string {
  if (bytesPerSecond === null) return 'unlimited';
  const bits = 8 * bytesPerSecond;
  const [unit, size] = bits >= 1e9 ? ['Gbit/s', 1e9] : bits >= 1e6 ? ['Mbit/s', 1e6] : ['kbit/s', 1e3];
  return `${Number((bits / size).toPrecision(3))} ${unit}`;
}

function formatCompress(compress: CompressionChoice): string {
  return compress === 'none' ? 'uncompressed' : compress === 'auto' ? 'compressed if it pays' : compress;
}

function formatChannels(channels: number | null): string {
  return channels === null ? 'auto channels' : `${channels} channel${channels === 1 ? '' : 's'}`;
}
