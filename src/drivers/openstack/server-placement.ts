/**
 * How a new server gets its place in a network. Nova chooses the subnet itself where the network has only one, or by the
 * private address where one is asked for. Otherwise the subnet is chosen by a port that we make, which carries the
 * server's marker: it is found again by a repeated create, and removed after its server or with its subnet.
 */
import type { ResourceId } from "#kernel/ids.ts";
import type { ServerSpec } from "#model/resource.ts";
import {
  floatingIpSchema,
  portResponseSchema,
  portSchema,
  subnetResponseSchema,
  subnetSchema,
} from "#wire/openstack/neutron.ts";
import type { NeutronPort } from "#wire/openstack/neutron.ts";
import type { ServerLinks } from "#wire/openstack/openstack-resources.ts";
import { markerText, splitMarker } from "#wire/openstack/openstack-tags.ts";
import type { Marker } from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";
import { byId } from "./network-kind.ts";

export interface Placement {
  readonly networks: "auto" | readonly Readonly<Record<string, string>>[];
  /** False when the groups are on the port already. */
  readonly groupsOnServer: boolean;
  /** The port that was made for this server, where one was needed. */
  readonly portId?: string;
}

async function markedPort(mark: string, calls: Calls): Promise<NeutronPort | undefined> {
  const [port] = await calls.all("network", "/ports", "ports", portSchema, {
    ...byId,
    query: { description: mark },
  });
  return port;
}

async function makePort(
  spec: ServerSpec,
  networkId: string,
  mark: string,
  calls: Calls,
): Promise<NeutronPort> {
  const port = {
    network_id: networkId,
    description: mark,
    fixed_ips: [{ subnet_id: spec.subnetId }],
    ...(spec.groupIds.length === 0 ? {} : { security_groups: spec.groupIds }),
  };
  return (await calls.change("POST", "network", "/ports", { port }, portResponseSchema)).port;
}

export async function placeServer(
  spec: ServerSpec,
  marker: Marker,
  mayExist: boolean,
  calls: Calls,
): Promise<Placement> {
  if (spec.subnetId === undefined) return { networks: "auto", groupsOnServer: true };
  const { subnet } = await calls.get("network", `/subnets/${spec.subnetId}`, subnetResponseSchema);
  const uuid = subnet.network_id;
  if (spec.privateIp !== undefined) {
    return { networks: [{ uuid, fixed_ip: spec.privateIp }], groupsOnServer: true };
  }
  const siblings = await calls.all("network", "/subnets", "subnets", subnetSchema, {
    ...byId,
    query: { network_id: uuid },
  });
  if (siblings.length === 1) return { networks: [{ uuid }], groupsOnServer: true };
  const mark = markerText(marker);
  const known = mayExist ? await markedPort(mark, calls) : undefined;
  const port = known ?? (await makePort(spec, uuid, mark, calls));
  return { networks: [{ port: port.id }], groupsOnServer: false, portId: port.id };
}

/** Floating addresses by the port that they lead to. */
async function publicIpsOf(
  ports: readonly string[],
  calls: Calls,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const byPort = new Map<string, string[]>();
  for (let from = 0; from < ports.length; from += chunk) {
    const found = await calls.all("network", "/floatingips", "floatingips", floatingIpSchema, {
      ...byId,
      query: { port_id: ports.slice(from, from + chunk) },
    });
    for (const { port_id: port, floating_ip_address: ip } of found) {
      if (port) byPort.set(port, [...(byPort.get(port) ?? []), ip]);
    }
  }
  return byPort;
}

/** What Neutron knows of the servers of one page: their ports, and the public addresses that lead there. */
export async function linksOfServers(
  ids: readonly string[],
  calls: Calls,
): Promise<ReadonlyMap<string, ServerLinks>> {
  const byServer = await portsOfServers(ids, calls);
  const portIds = [...byServer.values()].flat().map(({ id }) => id);
  const byPort = await publicIpsOf(portIds, calls);
  return new Map(
    [...byServer].map(([id, ports]) => [
      id,
      { ports, publicIps: ports.flatMap((port) => byPort.get(port.id) ?? []) },
    ]),
  );
}

/** As many ids as fit a request line of 8 KiB. */
const chunk = 100;

/** Ports by server, for the servers of one page. */
export async function portsOfServers(
  ids: readonly string[],
  calls: Calls,
): Promise<ReadonlyMap<string, NeutronPort[]>> {
  const byServer = new Map<string, NeutronPort[]>();
  for (let from = 0; from < ids.length; from += chunk) {
    const ports = await calls.all("network", "/ports", "ports", portSchema, {
      ...byId,
      query: { device_id: ids.slice(from, from + chunk) },
    });
    for (const port of ports) {
      const list = byServer.get(port.device_id) ?? [];
      list.push(port);
      byServer.set(port.device_id, list);
    }
  }
  return byServer;
}

/** Nova leaves the ports that it did not make. */
export async function deletePorts(ports: readonly NeutronPort[], calls: Calls): Promise<void> {
  for (const port of ports) {
    const ours = splitMarker(port.description ?? "").marker !== undefined;
    if (ours) await calls.remove("network", `/ports/${port.id}`);
  }
}

export async function regroup(
  serverId: string,
  groupIds: readonly ResourceId[],
  calls: Calls,
): Promise<void> {
  const wanted = [...groupIds].sort().join();
  for (const port of (await portsOfServers([serverId], calls)).get(serverId) ?? []) {
    if ([...port.security_groups].sort().join() === wanted) continue;
    await calls.act("PUT", "network", `/ports/${port.id}`, { port: { security_groups: groupIds } });
  }
}
