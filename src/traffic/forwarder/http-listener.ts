import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Route } from "./route.ts";
import type { ForwarderLimits } from "./forwarder-config.ts";
import { answerOwn, HttpExchange } from "./http-exchange.ts";
import {
  forwardedFields,
  hostName,
  requestFraming,
  requestTarget,
  type RequestFraming,
} from "./http-head.ts";
import { UpgradeExchange } from "./upgrade-exchange.ts";

/** Requests that one connection may have under way (HTTP pipelining); with more it is closed. */
const MAX_PIPELINED = 16;

interface Admitted {
  readonly route: Route;
  readonly path: string;
  readonly fields: readonly string[];
  readonly framing: RequestFraming;
}

interface Refused {
  readonly status: number;
  readonly text: string;
}

export interface HttpListenerOptions {
  readonly routes: readonly Route[];
  readonly limits: ForwarderLimits;
  readonly trustForwardedFor: boolean;
}

/** An HTTP/1 server that gives each request to the first route that matches it. Not yet listening. */
export function createHttpListener(options: HttpListenerOptions): Server {
  const { limits } = options;
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headMs,
    // A long upload is no fault; the exchange's own timer ends one that stands still.
    requestTimeout: 0,
    keepAliveTimeout: limits.keepAliveMs,
    connectionsCheckingInterval: Math.max(50, Math.min(1_000, Math.floor(limits.headMs / 4))),
    insecureHTTPParser: false,
    requireHostHeader: true,
    noDelay: true,
    shouldUpgradeCallback: (incoming) => isWebSocket(incoming),
  });
  server.maxConnections = limits.connections;
  // Bounded by `headerBytes`; node's own limit on the count would drop fields silently.
  server.maxHeadersCount = 0;
  const pipelined = new WeakMap<Duplex, number>();
  server.on("request", (incoming, response) => {
    const { socket } = incoming;
    if (socket.destroyed) return;
    const underWay = (pipelined.get(socket) ?? 0) + 1;
    pipelined.set(socket, underWay);
    if (underWay > MAX_PIPELINED) {
      socket.destroy();
      return;
    }
    response.on("close", () => pipelined.set(socket, (pipelined.get(socket) ?? 1) - 1));
    takeRequest(options, incoming, response);
  });
  server.on("upgrade", (incoming, socket, head) => takeUpgrade(options, incoming, socket, head));
  // CONNECT would make this an open proxy.
  server.on("connect", (_incoming, socket) => refuseRaw(socket, 405, "Method Not Allowed"));
  return server;
}

function isWebSocket(incoming: IncomingMessage): boolean {
  return incoming.headers.upgrade?.trim().toLowerCase() === "websocket" && incoming.method === "GET";
}

function takeRequest(
  options: HttpListenerOptions,
  incoming: IncomingMessage,
  response: ServerResponse,
): void {
  const admitted = admit(options, incoming);
  if ("status" in admitted) {
    answerOwn(response, admitted.status, admitted.text, ["Connection", "close"]);
    return;
  }
  const { route } = admitted;
  if (route.config.redirect === undefined) new HttpExchange(route, incoming, response, admitted).start();
  else redirect(route, admitted.path, response);
}

function takeUpgrade(
  options: HttpListenerOptions,
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  const admitted = admit(options, incoming);
  if ("status" in admitted) refuseRaw(socket, admitted.status, admitted.text);
  else if (admitted.framing.body !== "none") refuseRaw(socket, 400, "Bad Request");
  else if (admitted.route.config.redirect !== undefined) refuseRaw(socket, 501, "Not Implemented");
  else new UpgradeExchange(admitted.route, incoming, socket, admitted).start(head);
}

function refuseRaw(socket: Duplex, status: number, text: string): void {
  // The connection is being given up: what else happens to it concerns no one.
  socket.on("error", () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${text}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () =>
    socket.destroy(),
  );
}

function admit(options: HttpListenerOptions, incoming: IncomingMessage): Admitted | Refused {
  const framing = requestFraming(incoming.rawHeaders, incoming.httpVersion);
  if ("refused" in framing) return { status: framing.status, text: framing.refused };
  const target = requestTarget(incoming.url ?? "", incoming.headers.host);
  if (target === null) return { status: 400, text: "the request target is neither a path nor an http URL" };
  const route = options.routes.find((candidate) => matches(candidate, target));
  if (route === undefined) return { status: 404, text: "no route takes this host and path" };
  const fields = forwardedFields(incoming.rawHeaders, {
    host: target.host,
    clientAddress: incoming.socket.remoteAddress ?? "unknown",
    trustForwardedFor: options.trustForwardedFor,
  });
  return { route, path: target.path, fields, framing };
}

function matches(route: Route, target: { readonly path: string; readonly host: string }): boolean {
  const { hosts, pathPrefix } = route.config.match ?? {};
  if (hosts !== undefined) {
    const name = hostName(target.host);
    if (!hosts.some((host) => host.toLowerCase() === name)) return false;
  }
  if (pathPrefix === undefined) return true;
  const path = target.path.replace(/\?.*$/s, "");
  return path === pathPrefix || path.startsWith(pathPrefix.endsWith("/") ? pathPrefix : `${pathPrefix}/`);
}

function redirect(route: Route, path: string, response: ServerResponse): void {
  route.requests += 1;
  const use = route.choose(new Set());
  const rule = route.config.redirect;
  if (use === undefined || rule === undefined || !path.startsWith("/")) {
    route.failures += 1;
    answerOwn(response, 503, `route ${route.config.name} has not been switched to any backend yet`);
    return;
  }
  use.requests += 1;
  const { host, port } = use.backend;
  const name = host.includes(":") ? `[${host}]` : host;
  const usual = rule.scheme === "http" ? 80 : 443;
  // Latin-1 bytes of the target would end up raw in the field; percent-encoding names the same resource.
  const safePath = path.replace(
    /[^\x21-\x7e]/g,
    (char) => `%${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
  const location = `${rule.scheme}://${name}${port === usual ? "" : `:${port}`}${safePath}`;
  // A kept redirect would outlive the next switch.
  answerOwn(response, rule.status, `moved to ${location}`, [
    "Location",
    location,
    "Cache-Control",
    "no-store",
  ]);
}
