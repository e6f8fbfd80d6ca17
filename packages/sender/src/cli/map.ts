import {
  MemoryCells,
  pictureCapacity,
  renderMemoryPicture,
  terminalStyle,
  type ActionContext,
  type CommonOptions,
} from '@ballast/shared/cli';
import { BallastError, ErrorCode, systemReason } from '@ballast/shared/errors';
import { encodeBalloonBitmap } from '@ballast/shared/memory';
import type { BalloonOrigin } from '../balloon/balloon-map.js';
import type { ReadMethod } from '../source/memory-source.js';
import { mapMemory, type RegionMap } from '../survey.js';
import { checkWrittenFile, writeNamedFile } from './written-file.js';

interface MapCliOptions extends CommonOptions {
  readonly balloon?: readonly BalloonOrigin[];
  readonly read?: ReadMethod;
  readonly saveBitmap?: string;
}

/** `ballast-send map FILE` */
export async function runMap(
  { balloon, read, saveBitmap }: MapCliOptions,
  { args: files, output, signal }: ActionContext,
): Promise<void> {
  if (saveBitmap !== undefined) checkWrittenFile('--save-bitmap', saveBitmap, files);
  for (const region of await mapMemory({ files, signal, ...(read && { read }), ...(balloon && { balloon }) })) {
    if (saveBitmap !== undefined) writeBitmap(saveBitmap, region);
    const { path, memoryBytes, dataBytes, zeroBytes, freeBytes } = region;
    output.event({
      event: 'map',
      path,
      memoryBytes,
      dataBytes,
      zeroBytes,
      freeBytes,
      extents: extentsOf(region),
    });
    output.print(picture(region));
  }
}

/** All runs of pages by address, in bytes. */
function extentsOf({ data, zero, free }: RegionMap): { start: number; length: number; kind: string }[] {
  const runs = Object.entries({ data, zero, free }).flatMap(([kind, extents]) =>
    [...extents].map(({ start, end }) => ({ start, length: end - start, kind })),
  );
  return runs.sort((a, b) => a.start - b.start);
}

function picture(region: RegionMap): string {
  const style = terminalStyle(process.stdout);
  const cells = new MemoryCells(region.memoryBytes, pictureCapacity(style));
  for (const kind of ['data', 'zero', 'free'] as const) {
    for (const { start, end } of region[kind]) cells.add(kind, start, end);
  }
  return renderMemoryPicture(cells, style, region.path).trimEnd();
}

function writeBitmap(path: string, { free, memoryBytes }: RegionMap): void {
  try {
    writeNamedFile(path, encodeBalloonBitmap(free, memoryBytes));
  } catch (error) {
    throw new BallastError(ErrorCode.WRITE, `the bitmap ${path} cannot be written ${systemReason(error)}`, {
      cause: error,
    });
  }
}
