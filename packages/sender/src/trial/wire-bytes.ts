/** Bytes on the wire in both directions, by what they are. */
export interface WireBytes {
  /** Page bytes. */
  readonly data: number;
  /** Records of leaves: digest, mask and place of each. */
  readonly hashes: number;
  readonly whiteouts: number;
  /** Runs of pages: the balloon map and, with `bitmap`, the zero ranges. */
  readonly map: number;
  /** Preambles, frame headers and control messages. */
  readonly control: number;
  readonly total: number;
}

export function wireBytes(parts: Omit<WireBytes, 'total'>): WireBytes {
  const { data, hashes, whiteouts, map, control } = parts;
  return { ...parts, total: data + hashes + whiteouts + map + control };
}
