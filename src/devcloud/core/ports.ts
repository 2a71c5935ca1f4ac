/** Ports: a server's place in a subnet, with its private address and groups. */
import { find, findAll, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { formatIpv4, parseIpv4, parsePrefix } from "./ipv4.ts";
import { checkQuota } from "./quotas.ts";
import type { PortRecord, SubnetRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

/** Where the search for a free address begins, per subnet: a moving cursor keeps launching n servers linear. */
const cursors = new WeakMap<Cloud, Map<string, number>>();

function isFree(cloud: Cloud, subnetId: string, ip: string): boolean {
  return cloud.data.tables.port.countBy("ip", `${subnetId}/${ip}`) === 0;
}

function poolSizes(subnet: SubnetRecord): { first: number; size: number }[] {
  return subnet.pools.map((pool) => {
    const first = parseIpv4(pool.first) ?? 0;
    return { first, size: (parseIpv4(pool.last) ?? 0) - first + 1 };
  });
}

/** How many addresses ports could still get. */
export function freeAddressCount(cloud: Cloud, subnet: SubnetRecord): number {
  const size = poolSizes(subnet).reduce((sum, pool) => sum + pool.size, 0);
  return Math.max(0, size - cloud.data.tables.port.countBy("subnet", subnet.id));
}

function freeAddress(cloud: Cloud, subnet: SubnetRecord): string {
  let byCloud = cursors.get(cloud);
  if (byCloud === undefined) cursors.set(cloud, (byCloud = new Map()));
  const pools = poolSizes(subnet);
  const total = pools.reduce((sum, pool) => sum + pool.size, 0);
  const start = byCloud.get(subnet.id) ?? 0;
  for (let step = 0; step < total; step += 1) {
    let offset = (start + step) % total;
    const pool = pools.find((each) => {
      if (offset < each.size) return true;
      offset -= each.size;
      return false;
    });
    const ip = formatIpv4((pool?.first ?? 0) + offset);
    if (ip !== subnet.gatewayIp && isFree(cloud, subnet.id, ip)) {
      byCloud.set(subnet.id, (start + step + 1) % total);
      return ip;
    }
  }
  return refuse({ code: "no_free_address", subnetId: subnet.id });
}

function askedAddress(cloud: Cloud, subnet: SubnetRecord, ip: string): string {
  const value = parseIpv4(ip);
  const prefix = parsePrefix(subnet.cidr);
  if (value === undefined || prefix === undefined || value < prefix.first || value > prefix.last) {
    refuse({
      code: "invalid",
      field: "privateIp",
      value: ip,
      message: `Address does not fall within the subnet's address range`,
    });
  }
  if (!isFree(cloud, subnet.id, ip) || ip === subnet.gatewayIp) refuse({ code: "address_in_use", ip });
  return ip;
}

export interface PortInput extends Naming {
  readonly subnetId: string;
  readonly privateIp?: string;
  readonly groupIds: readonly string[];
  readonly serverId?: string | null;
  readonly deleteWithServer?: boolean;
}

export function createPort(cloud: Cloud, input: PortInput): PortRecord {
  const subnet = find(cloud, "subnet", input.subnetId);
  checkGroups(cloud, subnet.networkId, input.groupIds);
  const mac = cloud.random.hex(5).replaceAll(/(..)/g, ":$1");
  return cloud.data.tables.port.put({
    ...newRecord(cloud, "port", input),
    networkId: subnet.networkId,
    subnetId: subnet.id,
    privateIp:
      input.privateIp === undefined
        ? freeAddress(cloud, subnet)
        : askedAddress(cloud, subnet, input.privateIp),
    mac: `02${mac}`,
    groupIds: [...new Set(input.groupIds)],
    serverId: input.serverId ?? null,
    deleteWithServer: input.deleteWithServer ?? false,
  });
}

export function setPortGroups(cloud: Cloud, portId: string, groupIds: readonly string[]): PortRecord {
  const port = find(cloud, "port", portId);
  checkGroups(cloud, port.networkId, groupIds);
  return cloud.data.tables.port.put({ ...port, groupIds: [...new Set(groupIds)] });
}

/** Ends an address's association with it. A port of a server is deleted with its server only. */
export function deletePort(cloud: Cloud, id: string): void {
  const port = find(cloud, "port", id);
  if (port.serverId !== null) {
    refuse({ code: "in_use", kind: "port", id, by: { kind: "server", id: port.serverId } });
  }
  removePort(cloud, port);
}

/** For the end of its server: no questions asked. */
export function removePort(cloud: Cloud, port: PortRecord): void {
  const { address, port: ports } = cloud.data.tables;
  for (const held of address.by("port", port.id)) address.put({ ...held, association: null });
  ports.delete(port.id);
}

function checkGroups(cloud: Cloud, networkId: string, groupIds: readonly string[]): void {
  checkQuota(cloud.quotas, "groupsPerPort", 0, groupIds.length);
  for (const group of findAll(cloud, "group", groupIds)) {
    if (group.networkId !== null && group.networkId !== networkId) {
      refuse({ code: "crosses", boundary: "network", ids: [group.id, networkId] });
    }
  }
}
