/** A bandwidth as networks are measured, decimal bits: "1 Gbit/s". @param bytesPerSecond null for no limit */
export function formatBandwidth(bytesPerSecond: number | null): string {
  if (bytesPerSecond === null) return 'unlimited';
  const bits = 8 * bytesPerSecond;
  const [unit, size] = bits >= 1e9 ? ['Gbit/s', 1e9] : bits >= 1e6 ? ['Mbit/s', 1e6] : ['kbit/s', 1e3];
  return `${Number((bits / size).toPrecision(3))} ${unit}`;
}
