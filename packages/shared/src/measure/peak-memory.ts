import { readFileSync, writeFileSync } from 'node:fs';

/** Begins to watch how much memory this process has resident at most. */
export function watchPeakMemory(): { peakBytes(): number } {
  try {
    // proc(5): 5 sets VmHWM, the peak, to what is resident now.
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    // Then the peak is that of the whole life of the process.
  }
  return { peakBytes };
}

function peakBytes(): number {
  try {
    const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    if (kibibytes !== undefined) return Number(kibibytes) * 1024;
  } catch {
    // Without /proc there is the kernel's other account.
  }
  return process.resourceUsage().maxRSS * 1024;
}
