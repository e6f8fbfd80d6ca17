import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseObject } from '../qemu/json.js';

/** What QEMU says when it refuses a command. */
export interface Refusal {
  readonly desc: string;
}

/**
 * What happens when a command comes: before QEMU gets it, or when its answer is back.
 * @returns the words in which the command is refused, before QEMU gets it; undefined to let it pass
 */
export type QmpFault = (
  moment: 'before' | 'after',
  command: string,
  proxy: QmpProxy,
) => undefined | Refusal | Promise<undefined | Refusal>;

/** Stands between a program and a monitor, line by line, and breaks where it is told to. */
export class QmpProxy {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string, server: Server) {
    this.path = path;
    this.#server = server;
  }

  static async open(folder: string, name: string, upstream: string, fault: QmpFault): Promise<QmpProxy> {
    const path = join(folder, `${name}.proxy`);
    const server = createServer();
    const proxy = new QmpProxy(path, server);
    server.on('connection', (client) => {
      proxy.#join(client, upstream, fault);
    });
    server.listen(path);
    await once(server, 'listening');
    return proxy;
  }

  /** Ends every connection at once; new ones are taken. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Ends every connection, and takes no new one. */
  close(): void {
    this.#server.close();
    this.cut();
  }

  #join(client: Socket, upstream: string, fault: QmpFault): void {
    const qemu = connect(upstream);
    const asked = new Map<unknown, string>();
    for (const socket of [client, qemu]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        client.destroy();
        qemu.destroy();
      });
    }
    let turn = Promise.resolve();
    const each = (
      from: Socket,
      to: Socket,
      look: (message: Readonly<Record<string, unknown>>) => Promise<boolean>,
    ): void => {
      const lines = createInterface({ input: from });
      lines.on('error', () => undefined);
      lines.on('line', (line) => {
        turn = turn.then(async () => {
          const passes = await look(parseObject(line));
          if (passes && !to.destroyed) to.write(`${line}\n`);
        });
      });
    };
    each(client, qemu, async (message) => {
      const command = String(message['execute']);
      asked.set(message['id'], command);
      const error = await fault('before', command, this);
      if (error !== undefined) client.write(`${JSON.stringify({ error, id: message['id'] })}\n`);
      return error === undefined;
    });
    each(qemu, client, async (message) => {
      const command = asked.get(message['id']);
      if (command !== undefined && ('return' in message || 'error' in message)) await fault('after', command, this);
      return true;
    });
  }
}
