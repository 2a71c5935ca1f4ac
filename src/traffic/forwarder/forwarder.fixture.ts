/** For tests: real backends on loopback, and forwarders before them. */
import { once } from "node:events";
import {
  type Agent,
  createServer,
  type IncomingHttpHeaders,
  type RequestListener,
  request,
  type Server,
} from "node:http";
import {
  type AddressInfo,
  connect,
  createServer as createTcpServer,
  type Server as TcpServer,
  type Socket,
} from "node:net";
import type { Backend } from "#traffic/traffic-switch.ts";
import { Forwarder } from "./forwarder.ts";
import type { ForwarderConfig, ForwarderLimits } from "./forwarder-config.ts";
import { memoryForwarderState } from "./forwarder-state.ts";

export interface Origin extends AsyncDisposable {
  readonly backend: Backend;
  readonly server: Server;
}

export async function openOrigin(id: string, listener?: RequestListener): Promise<Origin> {
  const server = createServer(
    listener ??
      ((incoming, response) => {
        incoming.resume();
        incoming.on("end", () => response.end(id));
      }),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const backend = { id, host: "127.0.0.1", port: (server.address() as AddressInfo).port };
  return {
    backend,
    server,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A raw TCP peer; what is still open is destroyed with it. */
export async function openTcpOrigin(
  id: string,
  onConnection: (socket: Socket) => void,
): Promise<{ readonly backend: Backend; readonly server: TcpServer } & AsyncDisposable> {
  const sockets = new Set<Socket>();
  const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    onConnection(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    backend: { id, host: "127.0.0.1", port: (server.address() as AddressInfo).port },
    server,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A port of loopback on which nothing listens. */
export async function deadBackend(id: string): Promise<Backend> {
  const server = createTcpServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return { id, host: "127.0.0.1", port };
}

export function openForwarder(
  limits: Partial<ForwarderLimits> = {},
  config: Partial<ForwarderConfig> = {},
): Promise<Forwarder> {
  return Forwarder.open(
    { listen: { host: "127.0.0.1", port: 0 }, mode: "http", routes: [{ name: "web" }], limits, ...config },
    { state: memoryForwarderState() },
  );
}

export const never = new AbortController().signal;

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly body: string;
}

export interface Ask {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string | string[]>;
  readonly body?: string;
  readonly agent?: Agent;
}

export function ask(to: { readonly host: string; readonly port: number }, what: Ask = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: to.host,
        port: to.port,
        method: what.method ?? "GET",
        path: what.path ?? "/",
        headers: what.headers ?? {},
        agent: what.agent ?? false,
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () =>
          resolve({
            status: answer.statusCode ?? 0,
            headers: answer.headers,
            rawHeaders: answer.rawHeaders,
            body: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    outgoing.on("error", reject);
    outgoing.end(what.body);
  });
}

/** Sends raw bytes and returns everything that comes back until the other side closes. */
export function rawTalk(
  to: { readonly host: string; readonly port: number },
  bytes: string | Buffer,
): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect({ host: to.host, port: to.port, allowHalfOpen: true }, () => socket.write(bytes));
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", () => socket.destroy());
    socket.on("end", () => socket.end());
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
  });
}

/** Resolves when `condition` holds; a state that never comes fails the test by its own time limit. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
