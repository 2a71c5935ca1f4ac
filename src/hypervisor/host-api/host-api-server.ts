/** Serves a `DiskHost` on a Unix socket. Who may open the socket may do everything: it is its user's alone (mode 0600). */
import { closeSync, openSync, rmSync } from "node:fs";
import http from "node:http";
import { basename, dirname } from "node:path";
import { z } from "zod";
import type { DiskHost } from "#cloud/disk-host.ts";
import { errorCodes, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import {
  encodeHostError,
  HOST_API_PREFIX,
  type HostCall,
  hostCalls,
  type HostRequest,
  type HostResponse,
  isHostCall,
  MOST_REQUEST_BYTES,
} from "./host-api-schemas.ts";

export interface HostApiServer {
  /** Open calls are aborted. The socket's file is gone afterwards; the host itself is not closed. */
  close(): Promise<void>;
}

type Handlers = {
  [Call in HostCall]: (request: HostRequest<Call>, signal: AbortSignal) => Promise<HostResponse<Call>>;
};

function handlersOf(host: DiskHost): Handlers {
  const done = (): null => null;
  return {
    startCapture: (request, signal) => host.startCapture(request, signal),
    stopCapture: ({ volumeId }, signal) => host.stopCapture(volumeId, signal).then(done),
    captures: async (_, signal) => [...(await host.captures(signal))],
    seed: ({ volumeId, uri, bytesPerSecond }, signal) =>
      host.seed({ volumeId, uri, ...(bytesPerSecond !== undefined && { bytesPerSecond }) }, signal),
    seeds: async (_, signal) => [...(await host.seeds(signal))],
    exportVolume: ({ volumeId }, signal) => host.exportVolume(volumeId, signal),
    endExport: ({ volumeId }, signal) => host.endExport(volumeId, signal).then(done),
    freeze: ({ serverId, limitMs }, signal) => host.freeze(serverId, limitMs, signal).then(done),
    thaw: ({ serverId }, signal) => host.thaw(serverId, signal).then(done),
    console: ({ serverId }, signal) => host.console(serverId, signal),
  };
}

/**
 * A socket's file that a killed process left is replaced: the caller knows, by a lock of its own, that no other agent serves it.
 * Errors: `machine.failing` when the socket cannot be made.
 */
export async function startHostApi(host: DiskHost, socketPath: string, log: Log): Promise<HostApiServer> {
  const handlers = handlersOf(host);
  const server = http.createServer({ requestTimeout: 30_000, maxHeaderSize: 8192 }, (request, response) => {
    const over = new AbortController();
    response.once("close", () => {
      if (!response.writableEnded) over.abort(new OperationalError("aborted", "the caller has gone"));
    });
    void answer(handlers, request, over.signal, log).then(({ status, body }) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
  });
  await listen(server, socketPath);
  return {
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      rmSync(socketPath, { force: true });
    },
  };
}

interface Reply {
  readonly status: number;
  readonly body: unknown;
}

async function answer(
  handlers: Handlers,
  request: http.IncomingMessage,
  signal: AbortSignal,
  log: Log,
): Promise<Reply> {
  try {
    const name = request.url?.startsWith(HOST_API_PREFIX) ? request.url.slice(HOST_API_PREFIX.length) : "";
    const bytes = await readBody(request);
    if (request.method !== "POST" || !isHostCall(name)) {
      throw new OperationalError("not_found", "the host agent has no such call");
    }
    return { status: 200, body: { result: await call(handlers, name, bytes, signal) } };
  } catch (error) {
    if (!(error instanceof OperationalError))
      log.error({ error: String(error) }, "a call to the host failed");
    const code = error instanceof OperationalError ? error.code : "internal";
    return { status: errorCodes[code].http, body: { error: encodeHostError(error) } };
  }
}

function call<Call extends HostCall>(
  handlers: Handlers,
  name: Call,
  bytes: Buffer,
  signal: AbortSignal,
): Promise<HostResponse<Call>> {
  return handlers[name](decodeRequest(name, bytes), signal);
}

/** Errors: `input.invalid`. */
function decodeRequest<Call extends HostCall>(name: Call, bytes: Buffer): HostRequest<Call> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new OperationalError("input.invalid", "the body is not JSON", { cause: error });
  }
  const decoded = hostCalls[name].request.safeParse(value);
  if (!decoded.success) {
    throw new OperationalError("input.invalid", `${name}: ${z.prettifyError(decoded.error)}`);
  }
  return decoded.data as HostRequest<Call>;
}

/** Errors: `input.too_large`. Read to the end all the same, so that the answer arrives. */
async function readBody(request: http.IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= MOST_REQUEST_BYTES) chunks.push(chunk);
    if (size > 16 * MOST_REQUEST_BYTES) break;
  }
  if (size > MOST_REQUEST_BYTES) {
    throw new OperationalError(
      "input.too_large",
      `a request to the host agent has at most ${MOST_REQUEST_BYTES} bytes`,
    );
  }
  return Buffer.concat(chunks);
}

function listen(server: http.Server, path: string): Promise<void> {
  rmSync(path, { force: true });
  // By the folder's descriptor: a Unix socket's name has at most 107 bytes (unix(7)).
  const folder = openSync(dirname(path), "r");
  // The file is made within `listen`: nobody else can open it before its mode is right.
  const mask = process.umask(0o177);
  return new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(
        new OperationalError("machine.failing", `the host agent cannot listen on ${path}`, {
          detail: error.message,
          cause: error,
        }),
      ),
    );
    server.listen(`/proc/self/fd/${folder}/${basename(path)}`, () => resolve());
    process.umask(mask);
  }).finally(() => {
    closeSync(folder);
  });
}
