import { chmodSync, chownSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { BallastError, ErrorCode, systemCode } from '@ballast/shared/errors';
import { MAX_STATE_BYTES, migrationOf, privateSocketPath, socketPeer, type QmpClient } from '@ballast/shared/qmp';

const POLL_MS = 2;
const TIMEOUT_MS = 60_000;

/**
 * Lets QEMU migrate to a socket of ours, and takes what it writes.
 * @returns the stream in pieces, at most MAX_STATE_BYTES
 * @throws BallastError GUEST with QEMU's reason, QMP
 */
export async function takeDeviceState(qmp: QmpClient): Promise<Buffer[]> {
  const path = privateSocketPath(qmp.path);
  const pieces: Buffer[] = [];
  const stream: { bytes: number; ended: boolean; failure?: BallastError } = { bytes: 0, ended: false };
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    // Whoever can see the folder can connect; only this QEMU may speak.
    const peer = socketPeer(socket);
    if (peer !== undefined && qmp.peer !== undefined && peer.uid !== qmp.peer.uid) {
      socket.destroy();
      return;
    }
    socket.on('data', (piece) => {
      stream.bytes += piece.length;
      if (stream.bytes > MAX_STATE_BYTES) {
        stream.failure = new BallastError(
          ErrorCode.GUEST,
          `the state of the guest's devices has more than ${MAX_STATE_BYTES} bytes; its memory must be in shared files`,
        );
        socket.destroy();
      } else pieces.push(piece);
    });
    socket.on('end', () => {
      stream.ended = true;
    });
  });
  try {
    await listen(server, path, qmp);
    await qmp.execute('migrate', { uri: `unix:${path}` });
    const deadline = performance.now() + TIMEOUT_MS;
    for (;;) {
      const { status, reason } = await migrationOf(qmp);
      if (stream.failure !== undefined) throw stream.failure;
      if (status === 'failed' || status === 'cancelled')
        throw new BallastError(ErrorCode.GUEST, `QEMU cannot save the state of its devices (${reason ?? status})`);
      if (status === 'completed' && stream.ended) return pieces;
      if (performance.now() > deadline)
        throw new BallastError(ErrorCode.QMP, `QEMU at ${qmp.path} did not save the state of its devices in time`);
      await sleep(POLL_MS);
    }
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(path, { force: true });
  }
}

async function listen(server: Server, path: string, qmp: QmpClient): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new BallastError(
          ErrorCode.QMP,
          `cannot listen for QEMU at ${path} (${systemCode(error) ?? error.message}); run where QEMU can be reached`,
          { cause: error },
        ),
      );
    });
    server.listen(path, resolve);
  });
  chmodSync(path, 0o600);
  // QEMU often is another user; root may give it the socket.
  if (qmp.peer !== undefined && qmp.peer.uid !== process.getuid?.()) {
    try {
      chownSync(path, qmp.peer.uid, qmp.peer.gid);
    } catch {
      // Not root: then QEMU is told to connect, and says so if it may not.
    }
  }
}
