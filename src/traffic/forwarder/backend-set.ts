/**
 * The backends of one route as the forwarder uses them: who gets the next request, who is put aside, and what is
 * still under way with whom. Pure but for the clock.
 */
import { Agent } from "node:http";
import { addressOf, type Backend } from "#traffic/traffic-switch.ts";

/** Something under way that can be cut: an exchange, a tunnel, a TCP connection. */
export interface Passage {
  cut(): void;
}

/** One address, for as long as it is in the set or anything is under way with it. */
export class BackendUse {
  backend: Backend;
  readonly agent: Agent;
  readonly passages = new Set<Passage>();
  requests = 0;
  failures = 0;
  /** Monotonic milliseconds until which it is put aside. */
  asideUntilMs = -Infinity;
  /** Called once when a retired backend has nothing under way any more. */
  whenIdle: () => void = () => {};
  #retired = false;

  constructor(backend: Backend, idleMs: number) {
    this.backend = backend;
    // The agent closes idle connections before the backend's own announced keep-alive limit does.
    this.agent = new Agent({ keepAlive: true, maxFreeSockets: 256, scheduling: "lifo", timeout: idleMs });
  }

  enter(passage: Passage): void {
    this.passages.add(passage);
  }

  leave(passage: Passage): void {
    this.passages.delete(passage);
    if (!this.#retired || this.passages.size > 0) return;
    this.agent.destroy();
    this.whenIdle();
  }

  /** No longer in the set: idle connections close now, busy ones when they are done. */
  retire(): void {
    this.#retired = true;
    if (this.passages.size === 0) this.agent.destroy();
  }

  revive(backend: Backend): void {
    this.backend = backend;
    this.#retired = false;
    this.whenIdle = () => {};
  }

  cut(): void {
    for (const passage of this.passages) passage.cut();
  }
}

export class BackendSet {
  readonly uses: readonly BackendUse[];
  readonly #now: () => number;
  #turn = 0;

  constructor(uses: readonly BackendUse[], monotonicMs: () => number) {
    this.uses = uses;
    this.#now = monotonicMs;
  }

  /**
   * The backend with the fewest passages for its weight; equals take turns. Those in `tried` and those put aside
   * come only when no other is left. Undefined when all have been tried and `tried` may not be repeated.
   */
  choose(tried: ReadonlySet<BackendUse>): BackendUse | undefined {
    const now = this.#now();
    const fresh = this.uses.filter((use) => weightOf(use) > 0 && !tried.has(use));
    const well = fresh.filter((use) => use.asideUntilMs <= now);
    return this.#leastLoaded(well.length > 0 ? well : fresh);
  }

  #leastLoaded(candidates: readonly BackendUse[]): BackendUse | undefined {
    if (candidates.length === 0) return undefined;
    this.#turn = (this.#turn + 1) % Number.MAX_SAFE_INTEGER;
    let best: BackendUse | undefined;
    let bestLoad = Infinity;
    for (let step = 0; step < candidates.length; step += 1) {
      const use = candidates[(this.#turn + step) % candidates.length];
      if (use === undefined) continue;
      const load = (use.passages.size + 1) / weightOf(use);
      if (load < bestLoad) {
        best = use;
        bestLoad = load;
      }
    }
    return best;
  }
}

function weightOf(use: BackendUse): number {
  return use.backend.weight ?? 1;
}

/** The uses of the next set: an address that stays keeps its connections, its counters and its load. */
export function nextUses(
  known: readonly BackendUse[],
  backends: readonly Backend[],
  idleMs: number,
): { readonly uses: readonly BackendUse[]; readonly removed: readonly BackendUse[] } {
  const byAddress = new Map(known.map((use) => [addressOf(use.backend), use]));
  const uses = backends.map(
    (backend) => byAddress.get(addressOf(backend)) ?? new BackendUse(backend, idleMs),
  );
  const kept = new Set(uses);
  return { uses, removed: known.filter((use) => !kept.has(use)) };
}
