import {
  type ClientRequest,
  type IncomingMessage,
  type ServerResponse,
  STATUS_CODES,
  request,
} from "node:http";
import type { BackendUse, Passage } from "./backend-set.ts";
import { endToEnd, isIdempotent, type RequestFraming } from "./http-head.ts";
import type { Route } from "./route.ts";

export interface ExchangeRequest {
  readonly path: string;
  /** End-to-end fields, as the backend gets them. */
  readonly fields: readonly string[];
  readonly framing: RequestFraming;
}

/** Why an attempt ended without an answer. */
type Fault = "refused" | "broken" | "timeout" | "cut";

/** Writes the forwarder's own answer: a status and one line that names the route and nothing behind it. */
export function answerOwn(
  response: ServerResponse,
  status: number,
  text: string,
  fields: readonly string[] = [],
): void {
  const body = `${status} ${STATUS_CODES[status] ?? ""}: ${text}\n`;
  response.writeHead(status, STATUS_CODES[status] ?? "", [
    ...fields,
    "Content-Type",
    "text/plain; charset=utf-8",
    "Content-Length",
    String(Buffer.byteLength(body)),
    ...(response.req.complete ? [] : ["Connection", "close"]),
  ]);
  response.end(body);
}

/**
 * One request and its answer. A request is given to another backend only when that is safe: nothing of it was
 * sent, or it has no body and its method is idempotent. A request that may not be repeated gets a connection of
 * its own, since a kept-alive one can be closed by the backend at the moment of sending.
 */
export class HttpExchange implements Passage {
  readonly #route: Route;
  readonly #incoming: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #request: ExchangeRequest;
  readonly #repeatable: boolean;
  readonly #tried = new Set<BackendUse>();
  #attempts = 0;
  #use: BackendUse | undefined;
  #upstream: ClientRequest | undefined;
  #connected = false;
  #freshOnly = false;
  #done = false;
  #watch: NodeJS.Timeout | undefined;

  constructor(route: Route, incoming: IncomingMessage, response: ServerResponse, request: ExchangeRequest) {
    this.#route = route;
    this.#incoming = incoming;
    this.#response = response;
    this.#request = request;
    this.#repeatable = isIdempotent(incoming.method ?? "") && request.framing.body === "none";
  }

  start(): void {
    this.#route.requests += 1;
    this.#route.active += 1;
    this.#response.on("close", () => this.#close());
    // A client that goes away mid-request: the response's "close" follows and ends the exchange.
    this.#incoming.on("error", () => this.#close());
    this.#attempt();
  }

  cut(): void {
    if (!this.#done) this.#attemptFailed("cut");
  }

  #attempt(): void {
    const use = this.#route.choose(this.#tried);
    if (use === undefined) {
      const { name } = this.#route.config;
      if (this.#attempts === 0) this.#fail(503, `route ${name} has not been switched to any backend yet`);
      else this.#fail(502, `no backend of route ${name} accepts connections`);
      return;
    }
    this.#attempts += 1;
    this.#connected = false;
    this.#use = use;
    use.requests += 1;
    use.enter(this);
    this.#arm(this.#route.limits.connectMs);
    try {
      this.#upstream = this.#send(use);
    } catch {
      // The HTTP layer refused to write the head: a field or target that it would not have parsed itself.
      this.#leave();
      this.#fail(400, "the request's head has characters that may not be forwarded");
    }
  }

  #send(use: BackendUse): ClientRequest {
    const { fields, framing, path } = this.#request;
    const method = this.#incoming.method ?? "GET";
    const bodiless = framing.body === "none" && (method === "POST" || method === "PUT" || method === "PATCH");
    const hasLength = fields.some(
      (field, index) => index % 2 === 0 && field.toLowerCase() === "content-length",
    );
    const upstream = request({
      host: use.backend.host,
      port: use.backend.port,
      method,
      path,
      headers: [
        ...fields,
        ...(framing.body === "chunked" ? ["Transfer-Encoding", "chunked"] : []),
        ...(bodiless && !hasLength ? ["Content-Length", "0"] : []),
      ],
      setHost: false,
      agent: this.#repeatable && !this.#freshOnly ? use.agent : false,
      maxHeaderSize: this.#route.limits.headerBytes,
      insecureHTTPParser: false,
    });
    upstream.maxHeadersCount = 0;
    upstream.on("socket", (socket) => {
      if (socket.connecting) socket.once("connect", () => this.#onConnected(upstream));
      else this.#onConnected(upstream);
    });
    upstream.on("error", (error) => {
      if (upstream !== this.#upstream || this.#done) return;
      if (upstream.reusedSocket) this.#freshOnly = true;
      this.#attemptFailed(error instanceof TimedOut ? "timeout" : this.#connected ? "broken" : "refused");
    });
    upstream.on("response", (answer) => {
      if (upstream === this.#upstream && !this.#done) this.#relay(answer);
    });
    if (framing.body === "none") upstream.end();
    return upstream;
  }

  #onConnected(upstream: ClientRequest): void {
    if (upstream.destroyed || this.#done) return;
    this.#connected = true;
    this.#arm(this.#route.limits.firstByteMs);
    if (this.#request.framing.body === "none") return;
    // The head goes out before the body comes: a backend may answer or refuse without waiting for it.
    upstream.flushHeaders();
    this.#incoming.pipe(upstream);
    this.#incoming.on("data", () => this.#watch?.refresh());
  }

  #relay(answer: IncomingMessage): void {
    const response = this.#response;
    this.#arm(this.#route.limits.idleMs);
    const fields = endToEnd(answer.rawHeaders);
    if (!this.#incoming.complete) fields.push("Connection", "close");
    answer.on("error", () => this.#broken());
    answer.on("close", () => {
      if (!answer.complete) this.#broken();
    });
    answer.on("data", () => this.#watch?.refresh());
    response.on("drain", () => this.#watch?.refresh());
    answer.on("end", () => {
      const trailers: [string, string][] = [];
      for (let index = 0; index + 1 < answer.rawTrailers.length; index += 2)
        trailers.push([answer.rawTrailers[index] ?? "", answer.rawTrailers[index + 1] ?? ""]);
      if (trailers.length > 0) response.addTrailers(trailers);
    });
    try {
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? "", fields);
    } catch {
      // Likewise: an answer whose head this side would refuse to parse.
      this.#upstream?.destroy();
      this.#countFailure();
      this.#fail(502, `a backend of route ${this.#route.config.name} sent an answer that is not HTTP`);
      return;
    }
    answer.pipe(response);
  }

  /** The backend broke off in the middle of its answer: the client must see that it is not whole. */
  #broken(): void {
    if (this.#done) return;
    this.#countFailure();
    this.#route.failures += 1;
    this.#response.destroy();
    this.#close();
  }

  #attemptFailed(fault: Fault): void {
    const upstream = this.#upstream;
    const use = this.#use;
    this.#upstream = undefined;
    if (this.#response.headersSent) {
      upstream?.destroy();
      this.#broken();
      return;
    }
    this.#countFailure();
    const connected = this.#connected;
    const stalled = fault === "timeout" && connected && !this.#incoming.complete;
    if (!connected && use !== undefined && fault !== "cut") this.#route.putAside(use);
    if (use !== undefined && !this.#freshOnly) this.#tried.add(use);
    this.#leave();
    upstream?.destroy();
    const mayRepeat = !connected || (this.#repeatable && fault !== "timeout");
    if (mayRepeat && this.#attempts < this.#route.limits.attempts) {
      this.#route.retries += 1;
      this.#attempt();
      return;
    }
    const name = this.#route.config.name;
    if (stalled) this.#fail(408, "the request's body stopped coming");
    else if (fault === "cut") this.#fail(503, `route ${name} was switched while the request was under way`);
    else if (fault === "timeout") this.#fail(504, `no backend of route ${name} answered in time`);
    else if (!connected) this.#fail(502, `no backend of route ${name} accepts connections`);
    else this.#fail(502, `a backend of route ${name} closed the connection without an answer`);
  }

  #fail(status: number, text: string): void {
    this.#route.failures += 1;
    clearTimeout(this.#watch);
    if (this.#response.headersSent || this.#response.destroyed) {
      this.#response.destroy();
      this.#close();
      return;
    }
    this.#incoming.unpipe();
    answerOwn(this.#response, status, text, status === 503 ? ["Retry-After", "1"] : []);
    this.#arm(this.#route.limits.idleMs);
  }

  /** One timer for the phase that the exchange is in; bytes refresh it where progress counts. */
  #arm(ms: number): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      if (this.#upstream === undefined) this.#response.destroy();
      else if (this.#response.headersSent) this.#attemptFailed("timeout");
      else this.#upstream.destroy(new TimedOut());
    }, ms);
    this.#watch.unref();
  }

  #countFailure(): void {
    if (this.#use !== undefined) this.#use.failures += 1;
  }

  #leave(): void {
    this.#use?.leave(this);
    this.#use = undefined;
  }

  #close(): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#watch);
    this.#route.active -= 1;
    const upstream = this.#upstream;
    // A request whose answer came whole leaves its connection for the next one; any other is cut.
    if (!this.#response.writableFinished || !this.#incoming.complete) upstream?.destroy();
    this.#leave();
  }
}

class TimedOut extends Error {}
