/** Which servers receive a route's traffic at a site, read from the site itself. */
import type { Cloud, Observed } from "#cloud/contract.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import type { ResourceOf, Tags } from "#model/resource.ts";
import type { Backend } from "#traffic/traffic-switch.ts";

export interface RouteRule {
  readonly name: string;
  /** A server that bears all these tags is selected. */
  readonly select: Tags;
  readonly port: number;
}

export function isSelected(tags: Tags, select: Tags): boolean {
  return Object.entries(select).every(([key, value]) => tags[key] === value);
}

/** Running servers of the environment that the rule selects, by the active side's ids. */
export function selectServers(state: EnvironmentState, rule: RouteRule): readonly ResourceOf<"server">[] {
  const selected: ResourceOf<"server">[] = [];
  for (const resource of state.resources()) {
    if (resource.kind !== "server" || resource.spec.power !== "running") continue;
    if (isSelected(resource.tags, rule.select)) selected.push(resource);
  }
  return selected;
}

/** A public address where there is one: users come from outside the site. */
export function backendOf(server: Observed<"server">, port: number): Backend | undefined {
  const host = server.addresses.public[0] ?? server.addresses.private[0];
  if (server.status !== "ready" || host === undefined) return undefined;
  return { id: server.resource.id, host, port };
}

/** Reads all these servers with one listing; those that are not ready or have no address are absent. */
export async function readServers(
  cloud: Cloud,
  ids: readonly ResourceId[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Observed<"server">>> {
  const found = new Map<string, Observed<"server">>();
  if (ids.length === 0) return found;
  for await (const page of cloud.list("server", { ids }, signal)) {
    for (const server of page) found.set(server.resource.id, server);
  }
  return found;
}
