import type { ReceiveEvent } from '@ballast/shared/events';
import type { Address } from '@ballast/shared/transport';

export interface ReceiveOptions {
  /** Files to make, in the order of the sender's. With `sink` they are left alone, and may be none. */
  readonly files: readonly string[];
  /** Default: 127.0.0.1:7700. Port 0 takes any; the event `listening` has the one that was taken. */
  readonly listen?: Address;
  /** Replaces files that exist. */
  readonly force?: boolean;
  /** Writes no file: what arrives is verified and forgotten. */
  readonly sink?: boolean;
  /** Writes into the existing files instead of making new ones. */
  readonly inPlace?: boolean;
  /**
   * The monitor of a QEMU that waits for a guest (`-incoming defer`): a running guest is received into its memory files,
   * which are found by themselves, and goes on there.
   */
  readonly qmp?: string;
  /** Older copies of the same memory, one for each file in order: what they have in common need not be sent. Never changed. */
  readonly reuse?: readonly string[];
  /** TLS 1.3 with the files of a directory as QEMU names them: ca-cert.pem, server-cert.pem, server-key.pem. */
  readonly tls?: {
    readonly directory: string;
    /** Names of which the sender's certificate must have one. Default: any that the authority issued. */
    readonly allow?: readonly string[];
  };
  /** Listens beyond loopback without authentication. */
  readonly insecure?: boolean;
  /** Whether to refuse memory that might not fit the filesystem. Default: true. */
  readonly checkSpace?: boolean;
  /**
   * Milliseconds without a word from the sender after which it counts as gone; and for which a sender whose connection
   * broke may come back. Default: 30 s.
   */
  readonly timeoutMs?: number;
  /** Ends the transfer, or the wait for one; `receiveMemory` then throws ABORTED. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ReceiveEvent) => void;
}

export const DEFAULT_TIMEOUT_MS = 30_000;
