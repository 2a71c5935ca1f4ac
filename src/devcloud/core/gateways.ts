/** The way out of a network: EC2's internet gateways, OpenStack's routers. */
import { find, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { checkQuota } from "./quotas.ts";
import type { GatewayRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

export function createGateway(
  cloud: Cloud,
  input: Naming & { readonly externalNetworkId?: string | null },
): GatewayRecord {
  const { gateway } = cloud.data.tables;
  checkQuota(cloud.quotas, "gateways", gateway.size);
  const externalNetworkId = input.externalNetworkId ?? null;
  if (externalNetworkId !== null) find(cloud, "network", externalNetworkId);
  return gateway.put({
    ...newRecord(cloud, "gateway", input),
    networkId: null,
    subnetIds: [],
    externalNetworkId,
  });
}

export function attachGateway(cloud: Cloud, id: string, networkId: string): GatewayRecord {
  const { gateway } = cloud.data.tables;
  const record = find(cloud, "gateway", id);
  find(cloud, "network", networkId);
  if (record.networkId !== null) {
    refuse({ code: "already_associated", kind: "gateway", id, to: record.networkId });
  }
  const other = gateway.by("network", networkId)[0];
  if (other !== undefined) {
    refuse({ code: "already_associated", kind: "network", id: networkId, to: other.id });
  }
  return gateway.put({ ...record, networkId });
}

/** Refused while a server of the network has a public address, as that would cut it off. */
export function detachGateway(cloud: Cloud, id: string, networkId: string): GatewayRecord {
  const { gateway, port, server, address } = cloud.data.tables;
  const record = find(cloud, "gateway", id);
  find(cloud, "network", networkId);
  if (record.networkId !== networkId)
    refuse({ code: "not_associated", kind: "gateway", id, from: networkId });
  const mapped = port.by("network", networkId).find((each) => {
    const own = each.serverId === null ? undefined : server.get(each.serverId);
    return (own?.publicAddress === true && own.state !== "stopped") || address.countBy("port", each.id) > 0;
  });
  if (mapped !== undefined) {
    refuse({ code: "in_use", kind: "network", id: networkId, by: { kind: "address", id: mapped.id } });
  }
  return gateway.put({ ...record, networkId: null });
}

/** OpenStack: a subnet becomes reachable through the router. */
export function addGatewaySubnet(cloud: Cloud, id: string, subnetId: string): GatewayRecord {
  const { gateway } = cloud.data.tables;
  const record = find(cloud, "gateway", id);
  find(cloud, "subnet", subnetId);
  const other = gateway.by("subnet", subnetId)[0];
  if (other !== undefined) refuse({ code: "already_associated", kind: "subnet", id: subnetId, to: other.id });
  return gateway.put({ ...record, subnetIds: [...record.subnetIds, subnetId] });
}

/** Refused while an address is associated with a port of the subnet. */
export function removeGatewaySubnet(cloud: Cloud, id: string, subnetId: string): GatewayRecord {
  const { gateway, port, address } = cloud.data.tables;
  const record = find(cloud, "gateway", id);
  if (!record.subnetIds.includes(subnetId)) {
    refuse({ code: "not_associated", kind: "gateway", id, from: subnetId });
  }
  const mapped = port.by("subnet", subnetId).find((each) => address.countBy("port", each.id) > 0);
  if (mapped !== undefined) {
    refuse({ code: "in_use", kind: "gateway", id, by: { kind: "address", id: mapped.id } });
  }
  return gateway.put({ ...record, subnetIds: record.subnetIds.filter((each) => each !== subnetId) });
}

export function deleteGateway(cloud: Cloud, id: string): void {
  const { gateway } = cloud.data.tables;
  const record = find(cloud, "gateway", id);
  const network = record.networkId;
  if (network !== null) refuse({ code: "in_use", kind: "gateway", id, by: { kind: "network", id: network } });
  const subnet = record.subnetIds[0];
  if (subnet !== undefined)
    refuse({ code: "in_use", kind: "gateway", id, by: { kind: "subnet", id: subnet } });
  gateway.delete(id);
}
