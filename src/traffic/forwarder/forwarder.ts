import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import {
  checkEpoch,
  checkTarget,
  type RouteTarget,
  sameBackends,
  type TrafficSwitch,
} from "#traffic/traffic-switch.ts";
import { oneAtATime } from "#traffic/one-at-a-time.ts";
import { checkForwarderConfig, type ForwarderConfig, type ForwarderLimits } from "./forwarder-config.ts";
import type { ForwarderState } from "./forwarder-state.ts";
import { createHttpListener } from "./http-listener.ts";
import { Route, type RouteCounters } from "./route.ts";
import { TcpPassage } from "./tcp-passage.ts";

export interface ForwarderPorts {
  readonly state: ForwarderState;
  readonly clock?: Clock;
}

/**
 * Our own forwarder: takes users' connections on one address and gives them to each route's backends. It begins
 * with the targets that its state holds; a route without one answers 503 (HTTP) or closes (TCP).
 */
export class Forwarder {
  readonly #routes: ReadonlyMap<string, Route>;
  readonly #state: ForwarderState;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** One switch at a time: the state holds all routes, and the durable order is the order in force. */
  readonly #queue = oneAtATime();
  #closed = false;

  private constructor(config: ForwarderConfig, limits: ForwarderLimits, ports: ForwarderPorts) {
    const clock = ports.clock ?? systemClock;
    this.#state = ports.state;
    this.#routes = new Map(config.routes.map((route) => [route.name, new Route(route, limits, clock)]));
    this.#server =
      config.mode === "http"
        ? createHttpListener({
            routes: [...this.#routes.values()],
            limits,
            trustForwardedFor: config.trustForwardedFor ?? false,
          })
        : this.#tcpListener(limits);
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  /** Throws `config.invalid`, `store.failing`, or `port.in_use` / `port.forbidden` when it cannot listen. */
  static async open(config: ForwarderConfig, ports: ForwarderPorts): Promise<Forwarder> {
    const forwarder = new Forwarder(config, checkForwarderConfig(config), ports);
    for (const [name, target] of await ports.state.load()) forwarder.#routes.get(name)?.switchTo(target);
    await forwarder.#listen(config.listen);
    return forwarder;
  }

  /** Where it listens; the port is the real one when 0 was asked for. */
  get address(): { readonly host: string; readonly port: number } {
    const address = this.#server.address() as AddressInfo;
    return { host: address.address, port: address.port };
  }

  get routeNames(): readonly string[] {
    return [...this.#routes.keys()];
  }

  counters(): readonly RouteCounters[] {
    return [...this.#routes.values()].map((route) => route.counters());
  }

  /** The switch of one of its routes; closing the switch leaves the forwarder running. */
  switchOf(name: string): TrafficSwitch {
    const route = this.#route(name);
    const close = (): Promise<void> => Promise.resolve();
    return {
      kind: "forwarder",
      apply: (target, signal) => this.#apply(route, target, signal),
      read: () => Promise.resolve({ backends: route.backends }),
      close,
      [Symbol.asyncDispose]: close,
    };
  }

  /** Stops accepting, and cuts what is still under way after `drainMs` (default 0: at once). */
  async close(drainMs = 0): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    if ("closeIdleConnections" in this.#server)
      (this.#server as { closeIdleConnections(): void }).closeIdleConnections();
    const timer = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, drainMs);
    await closed;
    clearTimeout(timer);
    for (const route of this.#routes.values()) route.close();
    await this.#queue.idle();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #route(name: string): Route {
    const route = this.#routes.get(name);
    if (route !== undefined) return route;
    throw new OperationalError("not_found", `the forwarder has no route ${JSON.stringify(name)}`, {
      detail: `routes: ${this.routeNames.join(", ")}`,
    });
  }

  #apply(route: Route, target: RouteTarget, signal: AbortSignal): Promise<void> {
    return this.#queue.run(async () => {
      signal.throwIfAborted();
      checkTarget(target);
      const before = route.target;
      checkEpoch(route.config.name, target.epoch, before?.epoch ?? null);
      if (before !== null && before.epoch === target.epoch && sameBackends(before.backends, target.backends))
        return;
      const own: RouteTarget = structuredClone(target);
      const targets = new Map<string, RouteTarget>();
      for (const [name, { target: applied }] of this.#routes)
        if (applied !== null) targets.set(name, applied);
      targets.set(route.config.name, own);
      // Durable first: a forwarder that dies right after the switch comes back with the new set.
      await this.#state.save(targets);
      route.switchTo(own);
    });
  }

  #tcpListener(limits: ForwarderLimits): Server {
    const [route] = this.#routes.values();
    invariant(route !== undefined, "a TCP forwarder has one route");
    const server = createTcpServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      new TcpPassage(route, socket).start(),
    );
    server.maxConnections = limits.connections;
    return server;
  }

  #listen(address: { readonly host: string; readonly port: number }): Promise<void> {
    return new Promise((resolve, reject) => {
      const onError = (cause: NodeJS.ErrnoException): void => {
        const place = `${address.host}:${address.port}`;
        if (cause.code === "EADDRINUSE")
          reject(
            new OperationalError("port.in_use", `the forwarder cannot listen on ${place}: it is in use`, {
              cause,
            }),
          );
        else
          reject(
            new OperationalError(
              "port.forbidden",
              `the forwarder cannot listen on ${place}: choose an address of this machine and a permitted port`,
              { detail: String(cause), cause },
            ),
          );
      };
      this.#server.once("error", onError);
      this.#server.listen({ ...address, backlog: 1024 }, () => {
        this.#server.off("error", onError);
        resolve();
      });
    });
  }
}
