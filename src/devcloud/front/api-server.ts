/** The HTTP side: bounded bodies, then for each call count, rate limit, latency, faults, the dialect, the disk, the answer. */
import http from "node:http";
import type { AddressInfo } from "node:net";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { ApiCall, ApiRequest, ApiResponse, InjectedFailure } from "#devcloud/core/dialect.ts";
import { ADMIN_PREFIX, adminAuthorized, answerAdmin, type AdminContext } from "./admin-api.ts";
import { latencyMs } from "./call-limits.ts";
import type { FaultSpec } from "./fault-rules.ts";

/** Above what any of the APIs takes in one request. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
/** An authorized state to restore may be larger. */
const MAX_STATE_BYTES = 256 * 1024 * 1024;

/** What to do with a request in the end: answer, cut the connection, or leave it waiting. */
type Ending = ApiResponse | "cut" | "silence";

export interface ApiServer {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

/** Errors: `port.in_use`, `port.forbidden`. */
export async function startApiServer(
  context: AdminContext,
  listen: { readonly host: string; readonly port: number },
  log: Log,
): Promise<ApiServer> {
  const server = http.createServer(
    { requestTimeout: 30_000, headersTimeout: 10_000 },
    (request, response) => {
      const gone = new AbortController();
      response.once("close", () => gone.abort());
      serve(context, request, gone.signal).then(
        (ending) => finish(request, response, ending),
        (error: unknown) => {
          if (gone.signal.aborted) return;
          log.error({ error: publicMessage(error), stack: (error as Error).stack }, "a request failed");
          finish(request, response, context.dialect.fail({ kind: "internal" }, null));
        },
      );
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(listenError(error, listen)));
    server.listen(listen.port, listen.host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    host: listen.host,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listenError(error: NodeJS.ErrnoException, listen: { host: string; port: number }): OperationalError {
  const where = `${listen.host}:${listen.port}`;
  if (error.code === "EACCES") {
    return new OperationalError("port.forbidden", `${where} may not be used: choose a port above 1023`);
  }
  return new OperationalError(
    "port.in_use",
    `${where} cannot be used (${error.code ?? ""}): choose another --port`,
  );
}

function finish(request: http.IncomingMessage, response: http.ServerResponse, ending: Ending): void {
  if (ending === "silence") return;
  if (ending === "cut") {
    request.socket.destroy();
    return;
  }
  const length = Buffer.byteLength(ending.body);
  response.writeHead(ending.status, { ...ending.headers, "content-length": String(length) });
  response.end(request.method === "HEAD" ? undefined : ending.body);
}

/** Undefined: longer than `limit`. */
async function readBody(request: http.IncomingMessage, limit: number): Promise<Buffer | undefined> {
  if (Number(request.headers["content-length"] ?? 0) > limit) return undefined;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function serve(
  context: AdminContext,
  request: http.IncomingMessage,
  signal: AbortSignal,
): Promise<Ending> {
  const headers: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(request.headers)) {
    if (value !== undefined) headers[name] = typeof value === "string" ? value : value.join(", ");
  }
  const head = { method: request.method ?? "GET", target: request.url ?? "/", headers };
  const isAdmin = head.target.startsWith(ADMIN_PREFIX);
  const trusted = isAdmin && adminAuthorized({ ...head, body: Buffer.alloc(0) }, context.token);
  const body = await readBody(request, trusted ? MAX_STATE_BYTES : MAX_BODY_BYTES);
  if (body === undefined) return tooLarge(context);
  const whole: ApiRequest = { ...head, body };
  if (isAdmin) return answerAdmin(context, whole);
  const opened = context.dialect.open(whole);
  if ("turnedAway" in opened) {
    context.counters.of("(turned away)").calls += 1;
    return opened.turnedAway;
  }
  return answerCall(context, opened, signal);
}

function tooLarge(context: AdminContext): ApiResponse {
  const answer = context.dialect.fail(
    {
      kind: "code",
      code: "RequestEntityTooLarge",
      status: 413,
      message: `The request body is longer than ${MAX_BODY_BYTES} bytes.`,
    },
    null,
  );
  return { ...answer, headers: { ...answer.headers, connection: "close" } };
}

async function answerCall(context: AdminContext, call: ApiCall, signal: AbortSignal): Promise<Ending> {
  const { cloud, dialect } = context;
  const count = context.counters.of(call.operation);
  count.calls += 1;
  const waitMs = context.limits.take(call.operation);
  if (waitMs !== null) {
    count.throttled += 1;
    return dialect.fail({ kind: "throttled", retryAfterMs: Math.ceil(waitMs) }, call.operation);
  }
  const delayMs = latencyMs(context.latency, cloud.random);
  if (delayMs > 0) await cloud.clock.sleep(delayMs, signal);
  const fault = context.faults.hit(call.operation);
  if (fault !== undefined) count.faulted += 1;
  if (fault?.effect === "refuse") return dialect.fail(failureOf(fault), call.operation);
  if (fault?.effect === "timeout") return "silence";
  if (fault?.effect === "slow") await cloud.clock.sleep(fault.delayMs, signal);
  let answer: ApiResponse;
  try {
    answer = await call.run(signal);
    await cloud.data.durable();
  } catch (error) {
    count.failed += 1;
    if (!(error instanceof OperationalError)) throw error;
    return dialect.fail({ kind: "unavailable" }, call.operation);
  }
  if (answer.status < 400) count.succeeded += 1;
  else if (answer.status < 500) count.refused += 1;
  else count.failed += 1;
  if (fault?.effect === "corrupt") return corrupted(answer);
  if (fault?.effect !== "fail-after") return answer;
  return fault.answer === "error" ? dialect.fail(failureOf(fault), call.operation) : fault.answer;
}

function corrupted(answer: ApiResponse): ApiResponse {
  const body = Buffer.from(answer.body);
  const at = Math.floor(body.length / 2);
  if (body.length > 0) body.writeUInt8(body.readUInt8(at) ^ 1, at);
  return { ...answer, body };
}

function failureOf(fault: FaultSpec): InjectedFailure {
  const { code, status, message } = fault;
  if (code !== undefined) return { kind: "code", code, status, message };
  return status === 503 ? { kind: "unavailable" } : { kind: "internal" };
}
