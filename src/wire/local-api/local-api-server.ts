import { rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import { errorCodes, isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { encodeLocalError, type LocalHandlers, type LocalMethods, maxLocalBodyBytes } from "./local-api.ts";
import { type Certificates, isCalledBy } from "#wire/tls/certificates.ts";
import { limitStrangers } from "#wire/tls/limit-strangers.ts";
import { connectUnix, listenUnix } from "./unix-socket.ts";

export interface ServedMethods<M extends LocalMethods> {
  readonly methods: M;
  readonly handlers: LocalHandlers<M>;
  readonly log: Log;
}

export interface LocalApiServerOptions<M extends LocalMethods> extends ServedMethods<M> {
  readonly socketPath: string;
}

export interface RemoteApiServerOptions<M extends LocalMethods> extends ServedMethods<M> {
  readonly listen: { readonly host: string; readonly port: number };
  readonly certificates: Certificates;
  /** Names of certificates of the same CA whose holders may call. */
  readonly callers: readonly string[];
}

const limits = { requestTimeout: 30_000, maxHeaderSize: 8192 };
const handshakeTimeout = 5_000;

/** Errors: `state.conflict` when another process serves the socket, `config.invalid` when there can be none. */
export async function serveLocalApi<M extends LocalMethods>(
  options: LocalApiServerOptions<M>,
): Promise<AsyncDisposable> {
  const { socketPath } = options;
  if (await isServed(socketPath)) {
    throw new OperationalError("state.conflict", `another process serves ${socketPath}: stop it first`);
  }
  const server = createServer(limits, (request, response) => {
    void answer(options, request, response);
  });
  try {
    await listenUnix(server, socketPath);
  } catch (cause) {
    const message = `cannot listen on ${socketPath}: its folder must be there and writable`;
    throw new OperationalError("config.invalid", message, { detail: String(cause), cause });
  }
  return {
    async [Symbol.asyncDispose]() {
      await close(server);
      await rm(socketPath, { force: true });
    },
  };
}

/**
 * The same for callers on other machines, who show who they are. `port`: the bound one.
 * Errors: `config.invalid` for certificates that do not work, `port.*`.
 */
export async function serveRemoteApi<M extends LocalMethods>(
  options: RemoteApiServerOptions<M>,
): Promise<AsyncDisposable & { readonly port: number }> {
  const { listen, certificates, callers, log } = options;
  const server = makeTlsServer(certificates, (request, response) => {
    const socket = request.socket as TLSSocket;
    if (isCalledBy(socket, callers)) void answer(options, request, response);
    else {
      log.warn({ address: socket.remoteAddress }, "a caller whose certificate has no name that may call");
      const refusal = "the certificate is for no name that may call here: add it to `callers`";
      const error = new OperationalError("auth.forbidden", refusal);
      send(response, errorCodes[error.code].http, encodeLocalError(error));
    }
  });
  limitStrangers(server);
  server.maxConnections = 1024;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const code = cause.code === "EACCES" ? "port.forbidden" : "port.in_use";
      const message = `cannot listen on ${listen.host}:${listen.port}: ${cause.message}`;
      reject(new OperationalError(code, message, { cause }));
    });
    server.listen(listen.port, listen.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () => close(server),
  };
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

function makeTlsServer(
  { ca, cert, key }: Certificates,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): ReturnType<typeof createTlsServer> {
  try {
    const tls = { ca, cert, key: key.reveal(), minVersion: "TLSv1.2" } as const;
    return createTlsServer(
      { ...limits, ...tls, handshakeTimeout, requestCert: true, rejectUnauthorized: true },
      handle,
    );
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new OperationalError("config.invalid", `the certificate and its key do not work: ${why}`, {
      cause,
    });
  }
}

async function isServed(path: string): Promise<boolean> {
  try {
    (await connectUnix(path, "api.unreachable")).destroy();
    return true;
  } catch {
    return false;
  }
}

async function answer<M extends LocalMethods>(
  { methods, handlers, log }: ServedMethods<M>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort(new OperationalError("aborted", "the caller is gone")));
  try {
    const name = (request.url ?? "").slice(1);
    const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
    if (request.method !== "POST" || method === undefined) {
      throw new OperationalError("not_found", `there is no method ${JSON.stringify(name.slice(0, 100))}`);
    }
    const input = method.input.safeParse(await readJson(request));
    if (!input.success) {
      const [issue] = input.error.issues;
      const where = issue?.path.join(".") ?? "";
      throw new OperationalError("input.invalid", `${name}: ${where} ${issue?.message ?? ""}`);
    }
    const handler = handlers[name] as (input: unknown, signal: AbortSignal) => Promise<unknown>;
    send(response, 200, (await handler(input.data, gone.signal)) ?? null);
  } catch (error) {
    if (gone.signal.aborted) return;
    if (isOperational(error)) return send(response, errorCodes[error.code].http, encodeLocalError(error));
    log.error({ err: error }, "a local call failed");
    const hidden = new OperationalError(
      "internal",
      "internal error: see the log of the process that serves it",
    );
    send(response, 500, encodeLocalError(hidden));
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(text)),
  });
  response.end(text);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxLocalBodyBytes) {
      throw new OperationalError("input.too_large", `a call takes at most ${maxLocalBodyBytes} bytes`);
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    throw new OperationalError("input.invalid", "the call's body is not JSON");
  }
}
