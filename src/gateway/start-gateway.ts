/**
 * The endpoint that the users' own tools point at. Guarantees
 * - Nothing reaches a cloud for a caller that was not authenticated.
 * - A change is forwarded only after its intent is durable, and answered with success only after its outcome is.
 * - Changes that touch the same resources reach the cloud in the journal's order.
 * - A change whose outcome is not known holds its locks until the cloud has told, also over a restart.
 * - Reads are passed through piece by piece; no answer to a read is held in memory.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { OperationalError } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import { withTokenLock } from "./change-path.ts";
import type { Upstreams } from "./dialect.ts";
import { EnvironmentLane } from "./environment-lane.ts";
import { type GatewayLimits, type GatewayOptions, defaultLimits } from "./gateway-options.ts";
import { type GatewayStats, StatsRecorder } from "./gateway-stats.ts";
import { OpenCommands } from "./open-commands.ts";
import { type FrontPorts, serveRequest } from "./serve-request.ts";

export interface Gateway {
  /** `http://127.0.0.1:PORT` */
  readonly address: string;
  readonly port: number;
  /** From now on the environment's requests go there; `fence` tells the epoch. Resolves when the old connections are done. */
  setUpstream(environment: EnvironmentId, services: Upstreams): Promise<void>;
  stats(): GatewayStats;
  /** Takes no more requests, lets those in progress end, and leaves what is open to the next start. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Errors: `port.in_use`, `port.forbidden`, and what the journal says when it cannot be read. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const limits: GatewayLimits = { ...defaultLimits, ...options.limits };
  const stats = new StatsRecorder();
  const { journal, clock, random, log } = options;
  const open = new OpenCommands({ journal, clock, random, log, stats, settleMs: limits.settleMs });
  const lanes = new Map<EnvironmentId, EnvironmentLane>();
  for (const { id, services } of options.environments) {
    lanes.set(id, new EnvironmentLane(id, services, limits));
  }
  // Before the first request: what an earlier process left open has its locks again.
  for (const lane of lanes.values()) await adoptOpen(options, lane, open);
  const ports: FrontPorts = { ...options, limits, stats, open, lanes };
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes,
      requestTimeout: limits.requestTimeoutMs,
      headersTimeout: Math.min(limits.requestTimeoutMs, 10_000),
      connectionsCheckingInterval: Math.min(limits.requestTimeoutMs, 5_000),
      keepAliveTimeout: 75_000,
      noDelay: true,
    },
    (request, response) => void serveRequest(ports, request, response),
  );
  try {
    prepare(server, ports);
    await listen(server, options.listen);
  } catch (error) {
    await open.close();
    throw error;
  }
  return new RunningGateway(server, lanes, open, stats, limits);
}

async function adoptOpen(options: GatewayOptions, lane: EnvironmentLane, open: OpenCommands): Promise<void> {
  for (const { intent } of await options.journal.open(lane.id)) {
    const dialect = options.dialects.find(({ services }) => services.includes(intent.service));
    if (dialect === undefined) {
      throw new OperationalError(
        "config.invalid",
        `command ${intent.id} of ${lane.id} is open, and no dialect here speaks ${intent.service}: start with that dialect, so that the cloud can be asked what became of it`,
      );
    }
    const keys = withTokenLock(await dialect.locksOf(intent), intent.service, intent.token);
    // Conflicting commands may both be open only if the first lost its locks in a crash: then neither waits.
    const pending = lane.locks.acquire(keys);
    const hold = pending instanceof Promise ? laterHold(pending) : pending;
    open.adopt({ intent, lane, dialect, hold, outcome: null });
  }
}

/** A place in the queue that can be given up or released before it is granted. */
function laterHold(pending: Promise<{ release(): void }>): { release(): void } {
  return { release: () => void pending.then((hold) => hold.release()) };
}

function prepare(server: Server, ports: FrontPorts): void {
  const { limits } = ports;
  server.maxConnections = limits.connections;
  // Neither side may hold a connection without a byte moving for longer than any honest request takes.
  server.setTimeout(limits.lockWaitMs + limits.answerTimeoutMs + limits.requestTimeoutMs);
  server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
    void serveRequest(ports, request, response);
  });
  server.on("checkExpectation", (_request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(417, { connection: "close" }).end();
  });
  for (const event of ["upgrade", "connect"]) {
    server.on(event, (_request: IncomingMessage, socket: Socket) => {
      socket.end("HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
  }
  server.on("clientError", refuseBrokenRequest);
}

const brokenAnswers: ReadonlyMap<string, string> = new Map([
  ["HPE_HEADER_OVERFLOW", "431 Request Header Fields Too Large"],
  ["HPE_CHUNK_EXTENSIONS_OVERFLOW", "413 Payload Too Large"],
  ["ERR_HTTP_REQUEST_TIMEOUT", "408 Request Timeout"],
]);

/** What is not HTTP, or comes too slowly, never gets to a dialect. */
function refuseBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  // With an answer under way on this connection, another would be taken for a part of it.
  const { _httpMessage: answering } = socket as Socket & { _httpMessage?: ServerResponse };
  if (!socket.writable || error.code === "ECONNRESET" || answering?.headersSent === true) {
    socket.destroy();
    return;
  }
  const status = brokenAnswers.get(error.code ?? "") ?? "400 Bad Request";
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

function listen(server: Server, { host, port }: GatewayOptions["listen"]): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (cause: NodeJS.ErrnoException): void => {
      const where = `${host}:${port}`;
      if (cause.code === "EADDRINUSE") {
        reject(
          new OperationalError(
            "port.in_use",
            `the gateway cannot listen on ${where}: another program does; stop it, or give the gateway another port`,
            { cause },
          ),
        );
      } else {
        reject(
          new OperationalError("port.forbidden", `the gateway cannot listen on ${where}: ${cause.message}`, {
            cause,
          }),
        );
      }
    };
    server.once("error", fail);
    server.listen(port, host, () => {
      server.off("error", fail);
      resolve();
    });
  });
}

class RunningGateway implements Gateway {
  readonly address: string;
  readonly port: number;
  readonly #server: Server;
  readonly #lanes: ReadonlyMap<EnvironmentId, EnvironmentLane>;
  readonly #open: OpenCommands;
  readonly #stats: StatsRecorder;
  readonly #limits: GatewayLimits;
  #closing: Promise<void> | undefined;

  constructor(
    server: Server,
    lanes: ReadonlyMap<EnvironmentId, EnvironmentLane>,
    open: OpenCommands,
    stats: StatsRecorder,
    limits: GatewayLimits,
  ) {
    this.#server = server;
    this.#lanes = lanes;
    this.#open = open;
    this.#stats = stats;
    this.#limits = limits;
    const { address, family, port } = server.address() as AddressInfo;
    this.port = port;
    this.address = `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  }

  async setUpstream(environment: EnvironmentId, services: Upstreams): Promise<void> {
    const lane = this.#lanes.get(environment);
    invariant(lane !== undefined, `the gateway was not started with environment ${environment}`);
    await lane.setUpstreams(services);
  }

  stats(): GatewayStats {
    const lanes = [...this.#lanes.values()];
    const sum = (of: (lane: EnvironmentLane) => number): number =>
      lanes.reduce((total, lane) => total + of(lane), 0);
    return this.#stats.snapshot({
      changesInProgress: sum((lane) => lane.changes),
      waiting: sum((lane) => lane.locks.waiting),
      open: sum((lane) => lane.open),
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const grace = setTimeout(() => this.#server.closeAllConnections(), this.#limits.closeGraceMs);
    await closed;
    clearTimeout(grace);
    await this.#open.close();
    await Promise.all([...this.#lanes.values()].map((lane) => lane.close(this.#limits.closeGraceMs)));
  }
}
