/** Whether the servers of a site are there and let users in: computed from each one, never from silence. */
import type { Cloud } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { acceptsConnections } from "#takeover/accepts-connections.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { backendOf, isSelected, readServers, type RouteRule } from "#takeover/route-targets.ts";

export interface ServerCheck {
  readonly id: ResourceId;
  readonly name: string;
  readonly problem: string | null;
}

export interface VerifyRequest {
  readonly cloud: Cloud;
  readonly clock: Clock;
  /** Active-side servers that should run, and where each one's counterpart is; the server itself when it is the active side. */
  readonly state: EnvironmentState;
  readonly counterparts: ReadonlyMap<string, ResourceId> | null;
  readonly routes: readonly RouteRule[];
  /** Only these servers of the state are looked at; absent: all. */
  readonly only?: ReadonlySet<string>;
  /** How long a server may take until its routed ports accept connections, in milliseconds. */
  readonly patienceMs: number;
  readonly signal: AbortSignal;
}

const pauseMs = 250;

export async function verifyServers(request: VerifyRequest): Promise<readonly ServerCheck[]> {
  const { cloud, clock, state, counterparts, signal } = request;
  const deadline = clock.monotonicMs() + request.patienceMs;
  let pending = expectedServers(state, counterparts).filter(({ id }) => request.only?.has(id) ?? true);
  const checks: ServerCheck[] = pending
    .filter(({ at }) => at === null)
    .map(({ id, name }) => ({ id, name, problem: "it has no counterpart" }));
  pending = pending.filter(({ at }) => at !== null);
  for (;;) {
    const ids = pending.flatMap(({ at }) => at ?? []);
    const found = await readServers(cloud, ids, signal);
    const looked = await Promise.all(
      pending.map(async (server) => {
        const observed = found.get(server.at ?? "");
        if (observed === undefined) return { server, problem: "the site does not know it" };
        if (observed.status !== "ready")
          return {
            server,
            problem: `it is ${observed.status}${observed.fault ? `: ${observed.fault}` : ""}`,
          };
        const ports = request.routes
          .filter(({ select }) => isSelected(server.tags, select))
          .map(({ port }) => port);
        for (const port of ports) {
          const backend = backendOf(observed, port);
          if (backend === undefined) return { server, problem: "it has no address to reach it by" };
          if (!(await acceptsConnections(backend.host, port, signal)))
            return { server, problem: `port ${port} does not accept connections` };
        }
        return { server, problem: null };
      }),
    );
    for (const { server, problem } of looked) {
      if (problem === null) checks.push({ id: server.id, name: server.name, problem });
    }
    const failing = looked.filter(({ problem }) => problem !== null);
    if (failing.length === 0) return checks;
    if (clock.monotonicMs() >= deadline) {
      return [
        ...checks,
        ...failing.map(({ server, problem }) => ({ id: server.id, name: server.name, problem })),
      ];
    }
    pending = failing.map(({ server }) => server);
    await clock.sleep(pauseMs, signal);
  }
}

interface ExpectedServer {
  readonly id: ResourceId;
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly at: ResourceId | null;
}

function expectedServers(
  state: EnvironmentState,
  counterparts: ReadonlyMap<string, ResourceId> | null,
): ExpectedServer[] {
  const expected: ExpectedServer[] = [];
  for (const resource of state.resources()) {
    if (resource.kind !== "server" || resource.spec.power !== "running") continue;
    const { id, tags } = resource;
    const at = counterparts === null ? id : (counterparts.get(id) ?? null);
    expected.push({ id, name: tags["Name"] ?? id, tags, at });
  }
  return expected;
}

export function describeChecks(checks: readonly ServerCheck[]): string {
  const bad = checks.filter(({ problem }) => problem !== null);
  const named = bad.slice(0, 5).map(({ name, problem }) => `${name}: ${problem ?? ""}`);
  const rest = bad.length > 5 ? `, and ${bad.length - 5} more` : "";
  const good = `${checks.length - bad.length} of ${checks.length} servers are up and let users in`;
  return bad.length === 0 ? good : `${good}; ${named.join(", ")}${rest}`;
}
