import type { Clock } from "#kernel/clock.ts";
import type { Backend, RouteTarget } from "#traffic/traffic-switch.ts";
import { BackendSet, type BackendUse, nextUses } from "./backend-set.ts";
import type { ForwarderLimits, RouteConfig } from "./forwarder-config.ts";

export interface BackendCounters {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  /** Attempts that were given to it. */
  readonly requests: number;
  /** Attempts that it refused, broke or let time out. */
  readonly failures: number;
  readonly active: number;
  readonly aside: boolean;
  /** Removed by a switch, and finishing what is under way. */
  readonly draining: boolean;
}

export interface RouteCounters {
  readonly route: string;
  /** Requests (HTTP) or connections (TCP) that the route took. */
  readonly requests: number;
  /** Those that ended with the forwarder's own error, or were cut. */
  readonly failures: number;
  readonly active: number;
  readonly retries: number;
  readonly switches: number;
  /** Milliseconds since the Unix epoch; null: never since the start. */
  readonly lastSwitchAt: number | null;
  /** Null: never applied. */
  readonly epoch: number | null;
  readonly perBackend: readonly BackendCounters[];
}

/** A route at work: its set of backends, what is under way, and its counters. */
export class Route {
  readonly config: RouteConfig;
  readonly limits: ForwarderLimits;
  requests = 0;
  failures = 0;
  active = 0;
  retries = 0;
  #switches = 0;
  #lastSwitchAt: number | null = null;
  #target: RouteTarget | null = null;
  #set: BackendSet;
  readonly #draining = new Map<BackendUse, NodeJS.Timeout>();
  readonly #clock: Clock;

  constructor(config: RouteConfig, limits: ForwarderLimits, clock: Clock) {
    this.config = config;
    this.limits = limits;
    this.#clock = clock;
    this.#set = new BackendSet([], () => clock.monotonicMs());
  }

  get target(): RouteTarget | null {
    return this.#target;
  }

  get backends(): readonly Backend[] {
    return this.#set.uses.map((use) => use.backend);
  }

  choose(tried: ReadonlySet<BackendUse>): BackendUse | undefined {
    return this.#set.choose(tried);
  }

  putAside(use: BackendUse): void {
    use.asideUntilMs = this.#clock.monotonicMs() + this.limits.asideMs;
  }

  /** From the next request on, the new set serves. What is under way with removed backends has `drainMs`. */
  switchTo(target: RouteTarget): void {
    const known = [...this.#set.uses, ...this.#draining.keys()];
    const { uses, removed } = nextUses(known, target.backends, this.limits.keepAliveMs);
    target.backends.forEach((backend, index) => {
      const use = uses[index];
      if (use === undefined) return;
      use.revive(backend);
      clearTimeout(this.#draining.get(use));
      this.#draining.delete(use);
    });
    this.#set = new BackendSet(uses, () => this.#clock.monotonicMs());
    this.#target = target;
    this.#switches += 1;
    this.#lastSwitchAt = this.#clock.now();
    for (const use of removed) {
      use.retire();
      if (!this.#draining.has(use)) this.#drain(use);
    }
  }

  /** Cuts everything under way. */
  close(): void {
    for (const timer of this.#draining.values()) clearTimeout(timer);
    for (const use of [...this.#set.uses, ...this.#draining.keys()]) {
      use.retire();
      use.cut();
      use.agent.destroy();
    }
    this.#draining.clear();
  }

  counters(): RouteCounters {
    const now = this.#clock.monotonicMs();
    const all = [...this.#set.uses, ...this.#draining.keys()];
    return {
      route: this.config.name,
      requests: this.requests,
      failures: this.failures,
      active: this.active,
      retries: this.retries,
      switches: this.#switches,
      lastSwitchAt: this.#lastSwitchAt,
      epoch: this.#target?.epoch ?? null,
      perBackend: all.map((use) => ({
        id: use.backend.id,
        host: use.backend.host,
        port: use.backend.port,
        requests: use.requests,
        failures: use.failures,
        active: use.passages.size,
        aside: use.asideUntilMs > now,
        draining: this.#draining.has(use),
      })),
    };
  }

  #drain(use: BackendUse): void {
    if (use.passages.size === 0) return;
    // Real time: this bounds real sockets, and must not keep a finished process alive.
    const timer = setTimeout(() => {
      this.#draining.delete(use);
      use.cut();
    }, this.limits.drainMs);
    timer.unref();
    this.#draining.set(use, timer);
    use.whenIdle = () => {
      clearTimeout(timer);
      this.#draining.delete(use);
    };
  }
}
