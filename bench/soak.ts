import { Command, InvalidArgumentError } from 'commander';
import { guestImage } from '#test/qemu/guest-image.js';
import { moveLive } from './ballast.js';
import { describeFolder, findFolder, makePrivateFolder } from './folder.js';
import { formatSeconds } from './format.js';
import { GIB, MIB } from './group.js';
import { WanderingGuest } from './wandering-guest.js';

interface Options {
  readonly moves: number;
  readonly churn: number;
  readonly sendArg: readonly string[];
  readonly receiveArg: readonly string[];
}

const GUEST = { memoryBytes: 512 * MIB, balloonBytes: 128 * MIB, fillMiB: 64 };

const program = new Command('soak')
  .description(
    'Moves a running guest from QEMU to QEMU, again and again, while it writes to its memory, counts, and checks itself: no tick may be missing or come twice',
  )
  .option('--moves <n>', 'how often', count, 20)
  .option('--churn <MiB>', 'how much memory it writes to all the time, a multiple of 4', count, 16)
  .option('--send-arg <argument>', 'one more argument for ballast-send; may be repeated', collect, [])
  .option('--receive-arg <argument>', 'one more argument for ballast-receive; may be repeated', collect, [])
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

process.exitCode = await main(program.parse().opts<Options>());

async function main({ moves, churn, sendArg, receiveArg }: Options): Promise<number> {
  const found = findFolder(GIB);
  console.log(describeFolder(found));
  const folder = makePrivateFolder(found);
  const image = await guestImage();
  const guest = new WanderingGuest({ ...GUEST, name: 'soak', image, churnMiB: churn }, folder);
  try {
    for (let move = 1; move <= moves; move++) {
      await guest.getReady();
      const [here, there] = [guest.here.qemu.programQmpPath, guest.there.qemu.programQmpPath];
      const { seconds, counters } = await moveLive(here, there, {
        node: process.execPath,
        sendArgs: sendArg,
        receiveArgs: receiveArg,
      });
      await guest.verifyArrived();
      await guest.settle();
      const downtime = Math.round(counters['downtimeMs'] ?? NaN);
      console.log(`move ${move}/${moves}  ${formatSeconds(seconds)}, of which it stood still for ${downtime} ms`);
    }
    return 0;
  } catch (error) {
    console.error(`soak: ${error instanceof Error ? error.message : String(error)}`);
    return 1;
  } finally {
    await guest.end();
    folder.remove();
  }
}

function count(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InvalidArgumentError('expected a whole number, 1 or more');
}

function collect(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}
