import { type ClientRequest, type IncomingMessage, request, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { BackendUse, Passage } from "./backend-set.ts";
import { answerOwn } from "./http-exchange.ts";
import { endToEnd, valuesOf } from "./http-head.ts";
import type { Route } from "./route.ts";
import { joinConnections } from "./tunnel.ts";

/**
 * A request to upgrade (WebSocket, RFC 6455): forwarded on a connection of its own; after the backend's 101 the two
 * connections are joined, and count as under way until both are closed. Any other answer is passed on as it is.
 */
export class UpgradeExchange implements Passage {
  readonly #route: Route;
  readonly #incoming: IncomingMessage;
  readonly #client: Duplex;
  readonly #fields: readonly string[];
  readonly #path: string;
  readonly #tried = new Set<BackendUse>();
  #use: BackendUse | undefined;
  #upstream: ClientRequest | undefined;
  #cutTunnel: (() => void) | undefined;
  #answering = false;
  #done = false;
  #watch: NodeJS.Timeout | undefined;

  constructor(
    route: Route,
    incoming: IncomingMessage,
    client: Duplex,
    request: { readonly path: string; readonly fields: readonly string[] },
  ) {
    this.#route = route;
    this.#incoming = incoming;
    this.#client = client;
    this.#fields = request.fields;
    this.#path = request.path;
  }

  start(head: Buffer): void {
    this.#route.requests += 1;
    this.#route.active += 1;
    if (head.length > 0) this.#client.unshift(head);
    this.#client.on("error", () => this.#close());
    this.#client.on("close", () => this.#close());
    this.#attempt();
  }

  cut(): void {
    this.#client.destroy();
    this.#cutTunnel?.();
    this.#close();
  }

  #attempt(): void {
    const use = this.#route.choose(this.#tried);
    const name = this.#route.config.name;
    if (use === undefined || this.#tried.size >= this.#route.limits.attempts) {
      if (this.#tried.size === 0) this.#fail(503, `route ${name} has not been switched to any backend yet`);
      else this.#fail(502, `no backend of route ${name} accepts connections`);
      return;
    }
    this.#tried.add(use);
    this.#use = use;
    use.requests += 1;
    use.enter(this);
    try {
      this.#upstream = this.#send(use);
    } catch {
      // The HTTP layer refused to write the head.
      this.#fail(400, "the request's head has characters that may not be forwarded");
    }
  }

  #send(use: BackendUse): ClientRequest {
    let connected = false;
    const upstream = request({
      host: use.backend.host,
      port: use.backend.port,
      method: this.#incoming.method ?? "GET",
      path: this.#path,
      headers: [...this.#fields, "Connection", "Upgrade", "Upgrade", "websocket"],
      setHost: false,
      agent: false,
      maxHeaderSize: this.#route.limits.headerBytes,
      insecureHTTPParser: false,
    });
    upstream.maxHeadersCount = 0;
    let timedOut = false;
    const onTimeout = (): void => {
      timedOut = true;
      upstream.destroy(new Error("timed out"));
    };
    this.#arm(this.#route.limits.connectMs, onTimeout);
    upstream.on("socket", (socket) => {
      socket.once("connect", () => {
        connected = true;
        this.#arm(this.#route.limits.firstByteMs, onTimeout);
      });
    });
    upstream.on("error", () => {
      if (this.#done || this.#answering || upstream !== this.#upstream) return;
      use.failures += 1;
      if (!connected) {
        this.#route.putAside(use);
        this.#route.retries += 1;
        use.leave(this);
        this.#attempt();
      } else if (timedOut) this.#fail(504, `no backend of route ${this.#route.config.name} answered in time`);
      else
        this.#fail(
          502,
          `a backend of route ${this.#route.config.name} closed the connection without an answer`,
        );
    });
    upstream.on("upgrade", (answer, socket, head) => this.#join(answer, socket, head));
    upstream.on("response", (answer) => this.#relay(answer));
    upstream.end();
    return upstream;
  }

  #join(answer: IncomingMessage, backend: Socket, head: Buffer): void {
    clearTimeout(this.#watch);
    if (this.#done) {
      backend.destroy();
      return;
    }
    this.#answering = true;
    const fields = endToEnd(answer.rawHeaders);
    const lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"];
    lines.push(`Upgrade: ${valuesOf(answer.rawHeaders, "upgrade")[0] ?? "websocket"}`);
    for (let index = 0; index + 1 < fields.length; index += 2)
      lines.push(`${fields[index]}: ${fields[index + 1]}`);
    this.#client.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
    if (head.length > 0) backend.unshift(head);
    backend.setNoDelay(true);
    const tunnel = joinConnections(this.#client, backend, this.#route.limits.tunnelIdleMs, () =>
      this.#close(),
    );
    this.#cutTunnel = () => tunnel.cut();
  }

  #relay(answer: IncomingMessage): void {
    if (this.#done) return;
    const response = this.#ownResponse();
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? "", [
      ...endToEnd(answer.rawHeaders),
      "Connection",
      "close",
    ]);
    answer.on("error", () => this.cut());
    answer.pipe(response);
    this.#arm(this.#route.limits.idleMs, () => this.cut());
    answer.on("data", () => this.#watch?.refresh());
  }

  /** The server gave the connection away with the upgrade; this writes an ordinary answer to it, and closes. */
  #ownResponse(): ServerResponse {
    this.#answering = true;
    const response = new ServerResponse(this.#incoming);
    response.shouldKeepAlive = false;
    response.assignSocket(this.#client as Socket);
    response.on("finish", () => this.#client.end(() => this.#client.destroy()));
    return response;
  }

  #fail(status: number, text: string): void {
    this.#route.failures += 1;
    if (this.#answering || this.#client.destroyed) {
      this.cut();
      return;
    }
    answerOwn(this.#ownResponse(), status, text, ["Connection", "close"]);
    this.#arm(this.#route.limits.idleMs, () => this.cut());
  }

  #arm(ms: number, act: () => void): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(act, ms);
    this.#watch.unref();
  }

  #close(): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#watch);
    this.#route.active -= 1;
    if (this.#cutTunnel === undefined) this.#upstream?.destroy();
    this.#use?.leave(this);
  }
}
