/**
 * Keeps every route of an environment pointed at the site that serves it, as servers come and go. Who serves is the
 * environment's own record; a director of an older epoch is refused by the switch itself.
 */
import type { Cloud } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import type { Store } from "#store/contract.ts";
import { readEnvironment, servingSite, type EnvironmentRecord } from "#takeover/environment-record.ts";
import { acceptsConnections } from "#takeover/accepts-connections.ts";
import { backendOf, readServers, selectServers, type RouteRule } from "#takeover/route-targets.ts";
import { addressOf, sameBackends, type Backend, type TrafficSwitch } from "#traffic/traffic-switch.ts";

export interface DirectedRoute {
  readonly rule: RouteRule;
  readonly through: TrafficSwitch;
}

export interface DirectorPorts {
  readonly environment: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly routes: readonly DirectedRoute[];
  readonly cloudOf: (site: string) => Cloud;
  /** The environment as its active site has it. */
  readonly state: () => EnvironmentState;
  /** Whether a new backend takes users' connections yet; default: it is tried. */
  readonly accepts?: (backend: Backend, signal: AbortSignal) => Promise<boolean>;
  /** Active id -> id of its ready counterpart in the standby site. */
  readonly counterparts: () => Promise<ReadonlyMap<string, ResourceId>>;
}

export interface RouteStatus {
  readonly route: string;
  readonly kind: string;
  readonly site: string | null;
  /** Servers of the environment that bear the route's tags and should run. */
  readonly selected: number;
  readonly backends: number;
  /** Servers that should receive traffic but are not ready. */
  readonly missing: number;
  readonly error: string | null;
}

export interface Direction {
  readonly site: string;
  readonly routes: readonly RouteStatus[];
}

export interface TrafficDirector {
  /** Points every route at the serving site's ready servers. A route without one is left as it is and reported. */
  direct(signal: AbortSignal): Promise<Direction>;
  /** Directs again whenever asked, and at least every `everyMs`, until the signal aborts. */
  follow(everyMs: number, signal: AbortSignal): Promise<void>;
  /** The environment changed: direct soon. */
  nudge(): void;
  status(): readonly RouteStatus[];
}

export function createTrafficDirector(ports: DirectorPorts): TrafficDirector {
  const applied = new Map<string, { readonly epoch: number; readonly backends: readonly Backend[] }>();
  let statuses: readonly RouteStatus[] = [];
  let wake: (() => void) | undefined;
  let nudged = false;
  let inFlight: Promise<unknown> = Promise.resolve();

  async function directOnce(signal: AbortSignal): Promise<Direction> {
    const record = await readEnvironment(ports.store, ports.environment);
    const site = servingSite(record);
    const onActive = site === record.activeSite;
    const counterparts = onActive ? undefined : await ports.counterparts();
    const selections = ports.routes.map(({ rule }) =>
      selectServers(ports.state(), rule)
        .map((server) => (counterparts === undefined ? server.id : counterparts.get(server.id)))
        .map((id) => ({ id })),
    );
    const ids = new Set(selections.flat().flatMap(({ id }) => (id === undefined ? [] : [id])));
    const servers = await readServers(ports.cloudOf(site), [...ids], signal);
    const routes = await Promise.all(
      ports.routes.map((route, index) => {
        const selection = selections[index] ?? [];
        const backends = selection.flatMap(({ id }) => {
          const server = id === undefined ? undefined : servers.get(id);
          return (server === undefined ? undefined : backendOf(server, route.rule.port)) ?? [];
        });
        return applyRoute(route, record, site, backends, selection.length, signal);
      }),
    );
    statuses = routes;
    return { site, routes };
  }

  async function applyRoute(
    route: DirectedRoute,
    record: EnvironmentRecord,
    site: string,
    found: readonly Backend[],
    selected: number,
    signal: AbortSignal,
  ): Promise<RouteStatus> {
    const { name } = route.rule;
    const listening = await onlyListening(found, applied.get(name)?.backends ?? [], signal);
    const backends = listening.toSorted((a, b) => (a.id < b.id ? -1 : 1));
    const status = {
      route: name,
      kind: route.through.kind,
      site,
      selected,
      backends: backends.length,
      missing: selected - backends.length,
      error: null,
    };
    const last = applied.get(name);
    // A route is never switched to nothing: it stays where it was.
    if (backends.length === 0) {
      const error =
        selected === 0 ? "no server bears its tags" : "no server that could take this route is ready";
      return { ...status, site: null, error };
    }
    if (last?.epoch === record.epoch && sameBackends(last.backends, backends)) return status;
    try {
      await route.through.apply({ epoch: record.epoch, backends }, signal);
    } catch (error) {
      if (!isOperational(error)) throw error;
      applied.delete(name);
      return { ...status, site: null, error: publicMessage(error) };
    }
    applied.set(name, { epoch: record.epoch, backends });
    ports.log.info({ route: name, site, backends: backends.length, epoch: record.epoch }, "route applied");
    return status;
  }

  /** A server is ready for its cloud before it is ready for users. One that has users already keeps them. */
  async function onlyListening(
    found: readonly Backend[],
    routed: readonly Backend[],
    signal: AbortSignal,
  ): Promise<readonly Backend[]> {
    const accepts = ports.accepts ?? (({ host, port }) => acceptsConnections(host, port, signal));
    const known = new Set(routed.map(addressOf));
    const taken = await Promise.all(
      found.map(async (backend) => known.has(addressOf(backend)) || (await accepts(backend, signal))),
    );
    return found.filter((_backend, index) => taken[index]);
  }

  /** One at a time: two directions at once could apply an older reading over a newer one. */
  function direct(signal: AbortSignal): Promise<Direction> {
    const next = inFlight.then(
      () => directOnce(signal),
      () => directOnce(signal),
    );
    inFlight = next;
    return next;
  }

  async function follow(everyMs: number, signal: AbortSignal): Promise<void> {
    let lastError = "";
    while (!signal.aborted) {
      nudged = false;
      let restMs = everyMs;
      try {
        const { routes } = await direct(signal);
        if (routes.some((route) => route.missing > 0 || route.error !== null))
          restMs = Math.min(everyMs, 500);
        lastError = "";
      } catch (error) {
        if (signal.aborted) return;
        if (!isOperational(error)) throw error;
        const message = publicMessage(error);
        if (message !== lastError) ports.log.warn({ code: error.code, detail: error.detail }, message);
        lastError = message;
        restMs = Math.min(everyMs, 1000);
      }
      if (!nudged) await rest(restMs, signal);
    }
  }

  async function rest(ms: number, signal: AbortSignal): Promise<void> {
    const nap = new AbortController();
    wake = () => nap.abort();
    try {
      await ports.clock.sleep(ms, AbortSignal.any([signal, nap.signal]));
    } catch (error) {
      // Woken early, by a nudge or by the end; the caller's loop condition tells which.
      if (!nap.signal.aborted && !signal.aborted) throw error;
    } finally {
      wake = undefined;
    }
  }

  return {
    direct,
    follow,
    nudge() {
      nudged = true;
      wake?.();
    },
    status: () => statuses,
  };
}
