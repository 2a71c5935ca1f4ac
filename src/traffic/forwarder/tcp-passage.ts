import { connect, type Socket } from "node:net";
import type { BackendUse, Passage } from "./backend-set.ts";
import type { Route } from "./route.ts";
import { joinConnections } from "./tunnel.ts";

/** One client connection of TCP mode. Nothing is read from the client before a backend has accepted. */
export class TcpPassage implements Passage {
  readonly #route: Route;
  readonly #client: Socket;
  readonly #tried = new Set<BackendUse>();
  #backend: Socket | undefined;
  #use: BackendUse | undefined;
  #joined = false;
  #done = false;

  constructor(route: Route, client: Socket) {
    this.#route = route;
    this.#client = client;
  }

  start(): void {
    this.#route.requests += 1;
    this.#route.active += 1;
    this.#client.on("error", () => this.#close());
    this.#client.on("close", () => {
      if (!this.#joined) this.#close();
    });
    this.#attempt();
  }

  cut(): void {
    if (this.#done) return;
    this.#route.failures += 1;
    this.#client.destroy();
    this.#close();
  }

  #attempt(): void {
    const use = this.#route.choose(this.#tried);
    if (use === undefined || this.#tried.size >= this.#route.limits.attempts) {
      this.#route.failures += 1;
      this.#client.destroy();
      this.#close();
      return;
    }
    this.#tried.add(use);
    this.#use = use;
    use.requests += 1;
    use.enter(this);
    const backend = connect({
      host: use.backend.host,
      port: use.backend.port,
      allowHalfOpen: true,
      noDelay: true,
    });
    this.#backend = backend;
    const watch = setTimeout(() => backend.destroy(new Error("timed out")), this.#route.limits.connectMs);
    watch.unref();
    const refused = (): void => {
      clearTimeout(watch);
      if (this.#done) return;
      use.failures += 1;
      this.#route.putAside(use);
      this.#route.retries += 1;
      use.leave(this);
      this.#attempt();
    };
    backend.once("error", refused);
    backend.once("connect", () => {
      clearTimeout(watch);
      backend.off("error", refused);
      this.#joined = true;
      joinConnections(this.#client, backend, this.#route.limits.tunnelIdleMs, () => this.#close());
    });
  }

  #close(): void {
    if (this.#done) return;
    this.#done = true;
    this.#route.active -= 1;
    this.#backend?.destroy();
    this.#use?.leave(this);
  }
}
