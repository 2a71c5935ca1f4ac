/**
 * HTTP as the driver needs it: pooled connections, every phase bounded in time, answers bounded in size, redirects
 * never followed (a token must not travel to a host that the catalogue does not name).
 *
 * A change that was sent is not taken back when the caller loses patience: the cloud would go on with it anyway. The caller gets
 * `aborted` with outcome `unknown` at once, and `settled` tells when the cloud's answer is in, so that nothing is repeated
 * before.
 */
import { Agent } from "undici";
import type { Dispatcher } from "undici";
import { OperationalError } from "#kernel/errors.ts";

export interface HttpLimits {
  readonly connectTimeoutMs: number;
  /** From the last byte sent to the answer's head, and between two pieces of its body. */
  readonly answerTimeoutMs: number;
  readonly maxAnswerBytes: number;
  /** Connections to one host. */
  readonly connections: number;
}

export const defaultHttpLimits: HttpLimits = {
  connectTimeoutMs: 5_000,
  answerTimeoutMs: 60_000,
  maxAnswerBytes: 32 * 1024 * 1024,
  connections: 32,
};

export interface HttpRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
  /** Whether the request may change something: what is then unknown after a failure. */
  readonly change: boolean;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly text: string;
}

/** Failures before anything of the request was sent. */
const notSentCodes = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "UND_ERR_CONNECT_TIMEOUT",
  "CERT_HAS_EXPIRED",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "ERR_TLS_CERT_ALTNAME_INVALID",
]);
const timeoutCodes = new Set(["UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT", "ETIMEDOUT"]);

function codeOf(error: unknown): string {
  const code: unknown = (error as { code?: unknown } | null)?.code;
  if (typeof code === "string") return code;
  const cause: unknown = (error as { cause?: unknown } | null)?.cause;
  return cause === undefined ? "" : codeOf(cause);
}

function failure(request: HttpRequest, error: unknown): OperationalError {
  const code = codeOf(error);
  const { origin } = request.url;
  const options = { detail: `${request.method} ${request.url.pathname}: ${String(error)}`, cause: error };
  if (notSentCodes.has(code)) {
    const certificate = code.includes("CERT") || code.includes("SIGN");
    const advice = certificate
      ? "its certificate is not trusted: name its authority in the site's configuration"
      : "check its address and that it is up";
    return new OperationalError("cloud.unreachable", `cannot connect to ${origin} (${code}): ${advice}`, {
      ...options,
      outcome: "not_applied",
    });
  }
  const outcome = request.change ? "unknown" : "not_applied";
  if (timeoutCodes.has(code)) {
    return new OperationalError("cloud.timeout", `${origin} did not answer in time`, { ...options, outcome });
  }
  if (code === "UND_ERR_RES_EXCEEDED_MAX_SIZE") {
    return new OperationalError("cloud.protocol", `${origin} sent an answer larger than the limit`, {
      ...options,
      outcome,
    });
  }
  return new OperationalError("cloud.unreachable", `the connection to ${origin} broke before its answer`, {
    ...options,
    outcome,
  });
}

export function abortedError(signal: AbortSignal, change: boolean): OperationalError {
  return new OperationalError("aborted", "the call was given up before the cloud's answer", {
    outcome: change ? "unknown" : "not_applied",
    cause: signal.reason,
  });
}

/** Rejects as soon as the signal aborts; `work` itself goes on. */
export async function abandonable<T>(work: Promise<T>, signal: AbortSignal, change: boolean): Promise<T> {
  if (signal.aborted) {
    work.catch(() => undefined); // its failure is told to whoever still waits for it
    throw abortedError(signal, change);
  }
  const { promise: abandoned, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(abortedError(signal, change));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, abandoned]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

export class HttpClient {
  readonly #agent: Agent;

  constructor(limits: HttpLimits, certificateAuthority?: string) {
    this.#agent = new Agent({
      connections: limits.connections,
      // One request at a time a connection: a broken one then leaves one outcome unknown, not several.
      pipelining: 1,
      connect: {
        timeout: limits.connectTimeoutMs,
        ...(certificateAuthority === undefined ? {} : { ca: certificateAuthority }),
      },
      headersTimeout: limits.answerTimeoutMs,
      bodyTimeout: limits.answerTimeoutMs,
      maxResponseSize: limits.maxAnswerBytes,
    });
  }

  /**
   * Resolves with any HTTP answer, whatever its status. Rejects with `cloud.unreachable`, `cloud.timeout`, `cloud.protocol` or
   * `aborted`. `settled` is called with a promise that ends when the cloud has answered or cannot any more.
   */
  async send(request: HttpRequest, settled?: (end: Promise<unknown>) => void): Promise<HttpAnswer> {
    if (request.signal.aborted) throw abortedError(request.signal, false);
    const exchange = this.#exchange(request);
    if (request.change) {
      settled?.(exchange.then(undefined, () => undefined));
      exchange.catch(() => undefined); // told to the caller by the race, if it still waits
    }
    return abandonable(exchange, request.signal, request.change);
  }

  /** The bounded exchange itself. A read is ended on the wire with its caller's patience, a change is not. */
  async #exchange(request: HttpRequest): Promise<HttpAnswer> {
    try {
      const response: Dispatcher.ResponseData = await this.#agent.request({
        origin: request.url.origin,
        path: `${request.url.pathname}${request.url.search}`,
        method: request.method,
        headers: { ...request.headers },
        body: request.body ?? null,
        ...(request.change ? {} : { signal: request.signal }),
      });
      const headers = new Map<string, string>();
      for (const [name, value] of Object.entries(response.headers)) {
        if (value !== undefined)
          headers.set(name.toLowerCase(), Array.isArray(value) ? value.join(", ") : value);
      }
      return { status: response.statusCode, headers, text: await response.body.text() };
    } catch (error) {
      if (request.signal.aborted && !request.change) throw abortedError(request.signal, false);
      throw failure(request, error);
    }
  }

  /** Ends at once what is still open. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
