/** Networks and subnets. */
import { z } from "zod";
import { find, type Cloud } from "#devcloud/core/cloud.ts";
import { formatPrefix, overlaps, parseIpv4, parsePrefix } from "#devcloud/core/ipv4.ts";
import { createNetwork, createSubnet, deleteNetwork, deleteSubnet } from "#devcloud/core/networks.ts";
import type { NetworkRecord, SubnetRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { changedExtra, extraText } from "./dialect-extra.ts";
import { networkBody, subnetBody } from "./neutron-bodies.ts";
import { listAnswer } from "./neutron-list.ts";
import { ignored, neutronName, neutronText, recordsWithIds, viewOf } from "./neutron-request.ts";

const networkCreate = z.object({
  network: z.strictObject({
    ...ignored,
    name: neutronName.optional(),
    description: neutronText.optional(),
    shared: z.literal(false).optional(),
    "router:external": z.literal(false).optional(),
    mtu: z.number().optional(),
    port_security_enabled: z.boolean().optional(),
    availability_zone_hints: z.array(z.string()).optional(),
  }),
});

function postNetwork(call: Call): Answer {
  const { network } = bodyOf(call, networkCreate);
  const made = createNetwork(call.cloud, {
    name: network.name ?? "",
    extra: { description: network.description ?? "" },
  });
  return json(201, { network: networkBody(viewOf(call), made) });
}

function ownNetwork(call: Call, id: string): NetworkRecord {
  const network = find(call.cloud, "network", id);
  if (!network.external) return network;
  throw new ApiError(403, "(rule:update_network) is disallowed by policy", "PolicyNotAuthorized");
}

const named = { name: neutronName.optional(), description: neutronText.optional() };
const networkUpdate = z.object({
  network: z.strictObject({ ...ignored, ...named, port_security_enabled: z.boolean().optional() }),
});

function putNetwork(call: Call): Answer {
  const { network: set } = bodyOf(call, networkUpdate);
  const network = ownNetwork(call, param(call));
  const extra = changedExtra(network, call.cloud.clock.now(), {
    description: set.description ?? extraText(network, "description"),
  });
  const changed = call.cloud.data.tables.network.put({ ...network, name: set.name ?? network.name, extra });
  return json(200, { network: networkBody(viewOf(call), changed) });
}

/** Subnets and ports of the cloud's own go with the network; ports that somebody uses hold it. */
function removeNetwork(call: Call): Answer {
  const { subnet, port } = call.cloud.data.tables;
  const network = ownNetwork(call, param(call));
  const held = port.by("network", network.id);
  if (held.length > 0) {
    throw new ApiError(
      409,
      `Unable to complete operation on network ${network.id}. There are one or more ports still in use on the network, id for these ports is: ${held.map(({ id }) => id).join(",")}.`,
      "NetworkInUse",
    );
  }
  for (const own of subnet.by("network", network.id)) deleteSubnet(call.cloud, own.id);
  deleteNetwork(call.cloud, network.id);
  return empty(204);
}

const networkAttributes = [
  "id",
  "name",
  "description",
  "tenant_id",
  "project_id",
  "admin_state_up",
  "status",
  "shared",
  "router:external",
  "is_default",
  "mtu",
  "subnets",
];

function listNetworks(call: Call): Answer {
  const view = viewOf(call);
  return listAnswer<NetworkRecord>(call, {
    collection: "networks",
    records: recordsWithIds(call, call.cloud.data.tables.network),
    body: (record) => networkBody(view, record),
    attributes: networkAttributes,
  });
}

const subnetCreate = z.object({
  subnet: z.strictObject({
    ...ignored,
    ...named,
    network_id: z.string(),
    cidr: z.string().max(50),
    ip_version: z.union([z.number(), z.string()]).optional(),
    gateway_ip: z.string().nullable().optional(),
    enable_dhcp: z.boolean().optional(),
    allocation_pools: z
      .array(z.object({ start: z.string(), end: z.string() }))
      .max(100)
      .optional(),
    dns_nameservers: z.array(z.string().max(100)).max(5).optional(),
    host_routes: z.array(z.unknown()).max(0).optional(),
    ipv6_address_mode: z.null().optional(),
    ipv6_ra_mode: z.null().optional(),
    subnetpool_id: z.null().optional(),
  }),
});
type SubnetCreate = z.infer<typeof subnetCreate>["subnet"];

function poolsOf(subnet: SubnetCreate): { first: string; last: string }[] | undefined {
  const outer = parsePrefix(subnet.cidr);
  return subnet.allocation_pools?.map(({ start, end }) => {
    const [first, last] = [parseIpv4(start), parseIpv4(end)];
    const inside =
      outer !== undefined &&
      first !== undefined &&
      last !== undefined &&
      outer.first <= first &&
      last <= outer.last;
    if (!inside || first > last) {
      throw badRequest(
        `The allocation pool ${quoted(`${start}-${end}`)} spans beyond the subnet cidr ${quoted(subnet.cidr)}.`,
        "OutOfBoundsAllocationPool",
      );
    }
    return { first: start, last: end };
  });
}

function checkOverlap(cloud: Cloud, networkId: string, cidr: string): void {
  const wanted = parsePrefix(cidr);
  if (wanted === undefined) return;
  const clashes = (other: SubnetRecord): boolean => {
    const prefix = parsePrefix(other.cidr);
    return prefix !== undefined && overlaps(prefix, wanted);
  };
  if (!cloud.data.tables.subnet.by("network", networkId).some(clashes)) return;
  throw badRequest(
    `Invalid input for operation: Requested subnet with cidr: ${formatPrefix(wanted)} for network: ${networkId} overlaps with another subnet.`,
    "InvalidInput",
  );
}

function postSubnet(call: Call): Answer {
  const { subnet } = bodyOf(call, subnetCreate);
  if (Number(subnet.ip_version ?? 4) !== 4 || subnet.cidr.includes(":")) {
    throw badRequest("Invalid input for operation: this cloud has IPv4 subnets only.", "InvalidInput");
  }
  const network = ownNetwork(call, subnet.network_id);
  if (typeof subnet.gateway_ip === "string" && parseIpv4(subnet.gateway_ip) === undefined) {
    throw badRequest(
      `Invalid input for gateway_ip. Reason: '${quoted(subnet.gateway_ip)}' is not a valid IP address.`,
    );
  }
  const pools = poolsOf(subnet);
  checkOverlap(call.cloud, network.id, subnet.cidr);
  const made = createSubnet(call.cloud, {
    name: subnet.name ?? "",
    networkId: network.id,
    cidr: subnet.cidr,
    ...(subnet.gateway_ip === undefined ? {} : { gatewayIp: subnet.gateway_ip }),
    ...(pools === undefined ? {} : { pools }),
    extra: {
      description: subnet.description ?? "",
      noDhcp: subnet.enable_dhcp === false,
      dnsNameservers: subnet.dns_nameservers ?? [],
    },
  });
  return json(201, { subnet: subnetBody(viewOf(call), made) });
}

const subnetUpdate = z.object({
  subnet: z.strictObject({
    ...ignored,
    ...named,
    enable_dhcp: z.boolean().optional(),
    dns_nameservers: z.array(z.string().max(100)).max(5).optional(),
  }),
});

function putSubnet(call: Call): Answer {
  const { subnet: set } = bodyOf(call, subnetUpdate);
  const subnet = find(call.cloud, "subnet", param(call));
  ownNetwork(call, subnet.networkId);
  const extra = changedExtra(subnet, call.cloud.clock.now(), {
    description: set.description ?? extraText(subnet, "description"),
    ...(set.enable_dhcp === undefined ? {} : { noDhcp: !set.enable_dhcp }),
    ...(set.dns_nameservers === undefined ? {} : { dnsNameservers: set.dns_nameservers }),
  });
  const changed = call.cloud.data.tables.subnet.put({ ...subnet, name: set.name ?? subnet.name, extra });
  return json(200, { subnet: subnetBody(viewOf(call), changed) });
}

function removeSubnet(call: Call): Answer {
  const subnet = find(call.cloud, "subnet", param(call));
  ownNetwork(call, subnet.networkId);
  deleteSubnet(call.cloud, subnet.id);
  return empty(204);
}

const subnetAttributes = [
  "id",
  "name",
  "description",
  "tenant_id",
  "project_id",
  "network_id",
  "cidr",
  "ip_version",
  "gateway_ip",
  "enable_dhcp",
  "subnetpool_id",
  "ipv6_address_mode",
  "ipv6_ra_mode",
];

function listSubnets(call: Call): Answer {
  const view = viewOf(call);
  return listAnswer<SubnetRecord>(call, {
    collection: "subnets",
    records: recordsWithIds(call, call.cloud.data.tables.subnet, [["network_id", "network"]]),
    body: (record) => subnetBody(view, record),
    attributes: subnetAttributes,
    // Those of the external network are the provider's: tenants do not see them.
    visible: (record) => call.cloud.data.tables.network.get(record.networkId)?.external !== true,
  });
}

const service = "network" as const;
export const networkRoutes: readonly Route[] = [
  { service, method: "GET", path: "/networks", handler: listNetworks },
  { service, method: "POST", path: "/networks", handler: postNetwork },
  {
    service,
    method: "GET",
    path: "/networks/{id}",
    handler: (call) =>
      json(200, { network: networkBody(viewOf(call), find(call.cloud, "network", param(call))) }),
  },
  { service, method: "PUT", path: "/networks/{id}", handler: putNetwork },
  { service, method: "DELETE", path: "/networks/{id}", handler: removeNetwork },
  { service, method: "GET", path: "/subnets", handler: listSubnets },
  { service, method: "POST", path: "/subnets", handler: postSubnet },
  {
    service,
    method: "GET",
    path: "/subnets/{id}",
    handler: (call) =>
      json(200, { subnet: subnetBody(viewOf(call), find(call.cloud, "subnet", param(call))) }),
  },
  { service, method: "PUT", path: "/subnets/{id}", handler: putSubnet },
  { service, method: "DELETE", path: "/subnets/{id}", handler: removeSubnet },
];
