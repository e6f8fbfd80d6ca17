import { arch, availableParallelism, cpus, release, totalmem } from 'node:os';

/** What figures were measured on. */
export interface Machine {
  readonly kernel: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly node: string;
}

export function describeMachine(): Machine {
  return {
    kernel: `Linux ${release()}`,
    processor: `${cpus()[0]?.model.trim() ?? 'unknown processor'} (${arch()})`,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    node: process.version,
  };
}
