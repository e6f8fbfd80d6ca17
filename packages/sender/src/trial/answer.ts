import { formatDuration } from '@ballast/shared/cli';
import type { StrategyName } from '../strategy.js';
import { isSameSetting, settingLabel, settingsOf } from './setting.js';
import type { CellReport } from './trial-report.js';

/**
 * The mail's question for each setting: what does a zero bitmap gain over whiteouts, where the balloon map is asked in
 * both cases? `consult` against `bitmap`, which differ in nothing else.
 */
export function answersOf(cells: readonly CellReport[]): string[] {
  return settingsOf(cells).flatMap((setting) => {
    const at = (name: StrategyName): CellReport | undefined =>
      cells.find((cell) => cell.strategy === name && isSameSetting(cell, setting));
    const bitmapGain = gain(at('consult'), at('bitmap'));
    if (bitmapGain === undefined) return [];
    const mapGain = gain(at('unmodified'), at('consult'));
    const asking = mapGain === undefined ? '' : `; asking the balloon map instead of scanning gains ${mapGain}`;
    const label = settingLabel(setting, cells);
    return [`${label === '' ? 'Here' : `With ${label}`}, a zero bitmap gains ${bitmapGain}${asking}.`];
  });
}

/** "3.1 % (1.66 s to 1.61 s; predicted 2.8 %), less than the runs differ among themselves". */
function gain(from: CellReport | undefined, to: CellReport | undefined): string | undefined {
  if (from === undefined || to === undefined) return undefined;
  const predicted = percent(from.predicted.seconds, to.predicted.seconds);
  if (from.seconds === null || to.seconds === null) return `${predicted} by prediction, which nothing here measured`;
  const measured = percent(from.seconds.median, to.seconds.median);
  const times = `${formatDuration(from.seconds.median)} to ${formatDuration(to.seconds.median)}`;
  const isWithinNoise = from.seconds.least <= to.seconds.most && to.seconds.least <= from.seconds.most;
  const doubt = isWithinNoise ? ', less than the runs differ among themselves' : '';
  return `${measured} (${times}; predicted ${predicted})${doubt}`;
}

function percent(from: number, to: number): string {
  return `${(((from - to) / from) * 100).toFixed(1).replace('-', '−')} %`;
}
