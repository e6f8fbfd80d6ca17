import type { TransferResult } from '../events.js';
import { formatBytes, formatCount, formatDuration, formatRate } from './units.js';

/** A result in a few lines for people. */
export function describeResult(what: string, result: TransferResult): string[] {
  const { dataBytes, zeroBytes, freeBytes, wireBytes, seconds } = result;
  const announced = [
    result.whiteouts > 0 ? `${formatCount(result.whiteouts)} whiteouts` : '',
    result.mapBytes > 0 ? `${formatBytes(result.mapBytes)} of page ranges` : '',
  ].filter((text) => text !== '');
  return [
    `${what}: verified, in ${formatDuration(seconds)} (${formatRate(wireBytes / seconds)})`,
    `  memory ${formatBytes(result.memoryBytes)}: ${formatBytes(dataBytes)} data, ${formatBytes(zeroBytes)} zero, ${formatBytes(freeBytes)} free`,
    `  wire   ${formatBytes(wireBytes)}${announced.length > 0 ? `, with ${announced.join(' and ')}` : ''}; ${formatCount(result.scannedPages)} pages scanned`,
    `  root   ${result.root}`,
  ];
}
