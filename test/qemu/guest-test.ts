import test, { type ExecutionContext } from 'ava';
import { guestImage, type GuestImage } from './guest-image.js';
import { MissingRequirement } from './requirements.js';

/** Set to 1 where QEMU and the guest's packages must be there: then their absence fails a test and does not skip it. */
export const REQUIRE_VARIABLE = 'BALLAST_REQUIRE_QEMU';

export type GuestTest = (title: string, body: (t: ExecutionContext, image: GuestImage) => Promise<void>) => void;

/**
 * The `test` of a file whose tests run a real guest. Where the machine cannot do that, each test is skipped and says
 * why in its title.
 */
export async function guestTest(): Promise<GuestTest> {
  try {
    const image = await guestImage();
    // One after the other: two guests that emulate their processors at once leave none for what is tested.
    return (title, body) => {
      test.serial(title, async (t) => body(t, image));
    };
  } catch (error) {
    if (!(error instanceof MissingRequirement)) throw error;
    const reason = error.message;
    if (process.env[REQUIRE_VARIABLE] === '1') {
      return (title) => {
        test(title, (t) => {
          t.fail(`${REQUIRE_VARIABLE}=1, but ${reason}`);
        });
      };
    }
    return (title, body) => {
      test.skip(`${title} [no real guest here: ${reason}]`, async (t) => body(t, { kernel: '', initramfs: '' }));
    };
  }
}
