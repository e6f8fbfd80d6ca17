import { QmpClient as Client } from '@ballast/shared/qmp';
import { asObject, type JsonObject } from './json.js';

/** A QEMU monitor for tests, which trust QEMU. A refusal is a BallastError with QEMU's own words. */
export class QmpClient {
  readonly #client: Client;

  private constructor(client: Client) {
    this.#client = client;
  }

  /** Connects once, so that the caller decides whether a socket that is not there yet is worth another try. */
  static async connect(path: string): Promise<QmpClient> {
    return new QmpClient(await Client.connect(path));
  }

  /** Runs one command and gives what it returned. */
  async command(name: string, args: JsonObject = {}): Promise<unknown> {
    return this.#client.execute(name, args, 20_000);
  }

  /** The same for a command that returns an object, as nearly all queries do. */
  async query(name: string, args: JsonObject = {}): Promise<JsonObject> {
    return asObject(await this.command(name, args));
  }

  close(): void {
    this.#client.close();
  }
}
