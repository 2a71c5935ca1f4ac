import { Pool } from "undici";
import { type ErrorCode, isOperational, OperationalError, type Outcome } from "#kernel/errors.ts";
import { decodeLocalError, type InputOf, type LocalMethods, type OutputOf } from "./local-api.ts";
import { connectUnix } from "./unix-socket.ts";

export interface LocalApiClientOptions<M extends LocalMethods> {
  readonly socketPath: string;
  readonly methods: M;
  /** Who is called, for errors: `the vault at ./vault.sock`. */
  readonly peer: string;
  /** The code for a peer that does not answer. */
  readonly unreachable: ErrorCode;
}

/** Every method may be repeated: what is served here is idempotent. */
export class LocalApiClient<M extends LocalMethods> implements AsyncDisposable {
  readonly #options: LocalApiClientOptions<M>;
  readonly #pool: Pool;

  constructor(options: LocalApiClientOptions<M>) {
    this.#options = options;
    this.#pool = new Pool("http://local", {
      connect: (_wanted, done) => {
        connectUnix(options.socketPath, options.unreachable).then(
          (socket) => done(null, socket),
          (cause: unknown) => done(this.#silence("not_applied", cause), null),
        );
      },
      // A call may take its time; others do not wait for it.
      connections: 16,
      pipelining: 1,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** Errors: those of the method; `unreachable`, with an unknown outcome once the call may have left. */
  async call<Name extends keyof M & string>(
    name: Name,
    input: InputOf<M[Name]>,
    signal: AbortSignal,
  ): Promise<OutputOf<M[Name]>> {
    const { methods, peer } = this.#options;
    try {
      const { statusCode, body } = await this.#pool.request({
        method: "POST",
        path: `/${name}`,
        body: JSON.stringify(input),
        signal,
      });
      const answer: unknown = await body.json();
      if (statusCode === 200) return methods[name]?.output.parse(answer) as OutputOf<M[Name]>;
      throw (
        decodeLocalError(answer) ?? new OperationalError("cloud.protocol", `${peer} cannot be understood`)
      );
    } catch (error) {
      signal.throwIfAborted();
      if (isOperational(error)) throw error;
      throw this.#silence("unknown", error);
    }
  }

  #silence(outcome: Outcome, cause: unknown): OperationalError {
    const { peer, unreachable } = this.#options;
    const message = `${peer} does not answer: see whether it runs`;
    return new OperationalError(unreachable, message, { outcome, detail: String(cause), cause });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
  }
}
