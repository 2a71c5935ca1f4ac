import { isIP, type Socket } from "node:net";
import { connect } from "node:tls";
import { Pool } from "undici";
import { type ErrorCode, isOperational, OperationalError, type Outcome } from "#kernel/errors.ts";
import { decodeLocalError, type InputOf, type LocalMethods, type OutputOf } from "./local-api.ts";
import type { Certificates } from "#wire/tls/certificates.ts";
import { connectUnix } from "./unix-socket.ts";

/** Where calls are served: on a socket of this machine, or by another one, which shows a certificate for its name. */
export type ApiPlace =
  | { readonly socketPath: string }
  | { readonly host: string; readonly port: number; readonly certificates: Certificates };

/** As an address, for errors. */
export function nameOfPlace(place: ApiPlace): string {
  return "socketPath" in place ? place.socketPath : `https://${urlHost(place.host)}:${place.port}`;
}

const urlHost = (host: string): string => (host.includes(":") ? `[${host}]` : host);

export interface LocalApiClientOptions<M extends LocalMethods> {
  readonly place: ApiPlace;
  readonly methods: M;
  /** Who is called, for errors: `the vault at ./vault.sock`. */
  readonly peer: string;
  /** The code for a peer that does not answer. */
  readonly unreachable: ErrorCode;
  /** How often it is looked, while a call lasts, whether another machine is still there. Default 10 s. */
  readonly lookEveryMs?: number;
}

/** Every method may be repeated: what is served here is idempotent. */
export class LocalApiClient<M extends LocalMethods> implements AsyncDisposable {
  readonly #options: LocalApiClientOptions<M>;
  readonly #pool: Pool;

  constructor(options: LocalApiClientOptions<M>) {
    this.#options = options;
    this.#pool = new Pool("http://local", {
      connect: (_wanted, done) => {
        openConnection(options.place, options.unreachable).then(
          (socket) => done(null, socket),
          (cause: unknown) => done(this.#silence("not_applied", cause), null),
        );
      },
      // A call may take its time; others do not wait for it.
      connections: 16,
      pipelining: 1,
      headersTimeout: 0,
      bodyTimeout: 0,
      maxResponseSize: maxAnswerBytes,
    });
  }

  /** Errors: those of the method; `unreachable`, with an unknown outcome once the call may have left. */
  async call<Name extends keyof M & string>(
    name: Name,
    input: InputOf<M[Name]>,
    signal: AbortSignal,
  ): Promise<OutputOf<M[Name]>> {
    const { methods, peer } = this.#options;
    using watch = this.#watch();
    try {
      const { statusCode, body } = await this.#pool.request({
        method: "POST",
        path: `/${name}`,
        body: JSON.stringify(input),
        signal: AbortSignal.any([signal, watch.gone]),
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

  /**
   * A call may take its time, and a machine that has lost its power says nothing: TCP goes on sending to it for a quarter of an hour. So
   * while a call to another machine lasts, it is looked again and again whether a connection can still be made.
   */
  #watch(): Disposable & { readonly gone: AbortSignal } {
    const gone = new AbortController();
    const { place, unreachable, lookEveryMs = 10_000 } = this.#options;
    if ("socketPath" in place) return { gone: gone.signal, [Symbol.dispose]: () => {} };
    let over = false;
    let timer: NodeJS.Timeout;
    const look = (): void => {
      openConnection(place, unreachable).then(
        (socket) => {
          socket.destroy();
          if (!over) timer = setTimeout(look, lookEveryMs);
        },
        (error: unknown) => gone.abort(error),
      );
    };
    timer = setTimeout(look, lookEveryMs);
    return {
      gone: gone.signal,
      [Symbol.dispose]: () => {
        over = true;
        clearTimeout(timer);
      },
    };
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

const connectMs = 10_000;
/** A screenshot, or a long list. */
const maxAnswerBytes = 64 * 1024 * 1024;

function openConnection(place: ApiPlace, unreachable: ErrorCode): Promise<Socket> {
  if ("socketPath" in place) return connectUnix(place.socketPath, unreachable);
  const { host, port } = place;
  const { ca, cert, key } = place.certificates;
  return new Promise((resolve, reject) => {
    // An address is no name to send along (RFC 6066, 3); it is looked for in the certificate all the same.
    const name = isIP(host) === 0 ? { servername: host } : {};
    const tls = { ca, cert, key: key.reveal(), minVersion: "TLSv1.2" } as const;
    const socket = connect({ ...tls, ...name, host, port });
    socket.setTimeout(connectMs, () => socket.destroy(new Error(`no TLS connection within ${connectMs} ms`)));
    // It stays: a socket without a listener for its errors takes the process with it.
    socket.on("error", reject);
    socket.once("secureConnect", () => {
      socket.setTimeout(0);
      // For connections that nobody uses now; see `#watch` for the others.
      socket.setKeepAlive(true, connectMs);
      resolve(socket);
    });
  });
}
