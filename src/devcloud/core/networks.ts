/** Networks and subnets. Every function is part of the caller's transaction. */
import { find, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { contains, formatIpv4, formatPrefix, overlaps, parsePrefix, type Prefix } from "./ipv4.ts";
import { checkQuota } from "./quotas.ts";
import type { NetworkRecord, RecordKind, SubnetRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

/** Shortest and longest prefix that the dialect's networks and subnets may have. */
export interface PrefixLimits {
  readonly shortest: number;
  readonly longest: number;
}

function checkedPrefix(kind: RecordKind, cidr: string, limits: PrefixLimits): Prefix {
  const prefix = parsePrefix(cidr);
  if (prefix === undefined) refuse({ code: "cidr_invalid", kind, cidr, reason: "syntax" });
  if (prefix.length < limits.shortest || prefix.length > limits.longest) {
    refuse({ code: "cidr_invalid", kind, cidr, reason: "size" });
  }
  return prefix;
}

export interface NetworkInput extends Naming {
  /** Absent: prefixes belong to subnets alone. */
  readonly cidr?: string;
  readonly limits?: PrefixLimits;
  readonly isDefault?: boolean;
  readonly external?: boolean;
}

export function createNetwork(cloud: Cloud, input: NetworkInput): NetworkRecord {
  const { network } = cloud.data.tables;
  checkQuota(cloud.quotas, "networks", network.size);
  const limits = input.limits ?? { shortest: 0, longest: 32 };
  return network.put({
    ...newRecord(cloud, "network", input),
    cidr: input.cidr === undefined ? null : formatPrefix(checkedPrefix("network", input.cidr, limits)),
    isDefault: input.isDefault ?? false,
    external: input.external ?? false,
  });
}

/** Refuses while anything but the network's own default group and main route table stands in it. */
export function deleteNetwork(cloud: Cloud, id: string): void {
  const { network, subnet, gateway, group, routeTable, rule, port } = cloud.data.tables;
  find(cloud, "network", id);
  const holder = (
    [
      ["subnet", subnet.by("network", id)],
      ["port", port.by("network", id)],
      ["gateway", gateway.by("network", id)],
      ["group", group.by("network", id).filter((each) => !each.isDefault)],
      ["routeTable", routeTable.by("network", id).filter((each) => !each.main)],
    ] as const
  ).find(([, held]) => held.length > 0);
  if (holder !== undefined) {
    refuse({ code: "in_use", kind: "network", id, by: { kind: holder[0], id: holder[1][0]?.id ?? "" } });
  }
  for (const own of group.by("network", id)) {
    for (const held of rule.by("group", own.id)) rule.delete(held.id);
    group.delete(own.id);
  }
  for (const own of routeTable.by("network", id)) routeTable.delete(own.id);
  network.delete(id);
}

export interface SubnetInput extends Naming {
  readonly networkId: string;
  readonly cidr: string;
  readonly limits?: PrefixLimits;
  /** Absent: all addresses but `reservedFirst` at the start and one at the end. */
  readonly pools?: SubnetRecord["pools"];
  /** Addresses at the start that no port gets; EC2: 4 (network, router, DNS, future use). */
  readonly reservedFirst?: number;
  /** Absent: the first address after the network's own. */
  readonly gatewayIp?: string | null;
  readonly zone?: string | null;
  readonly isDefault?: boolean;
  readonly publicAddresses?: boolean;
}

export function createSubnet(cloud: Cloud, input: SubnetInput): SubnetRecord {
  const { subnet } = cloud.data.tables;
  const network = find(cloud, "network", input.networkId);
  if (input.zone !== undefined && input.zone !== null && !cloud.catalog.zones.includes(input.zone)) {
    refuse({ code: "not_found", kind: "zone", ids: [input.zone] });
  }
  const prefix = checkedPrefix("subnet", input.cidr, input.limits ?? { shortest: 0, longest: 30 });
  const cidr = formatPrefix(prefix);
  const outer = network.cidr === null ? undefined : parsePrefix(network.cidr);
  if (outer !== undefined && !contains(outer, prefix)) {
    refuse({ code: "cidr_invalid", kind: "subnet", cidr, reason: "outside" });
  }
  const siblings = subnet.by("network", network.id);
  const clash = siblings.find((sibling) => overlaps(parsePrefix(sibling.cidr) as Prefix, prefix));
  if (clash !== undefined) refuse({ code: "cidr_conflict", cidr, with: clash.id });
  checkQuota(cloud.quotas, "subnetsPerNetwork", siblings.length);
  return subnet.put({
    ...newRecord(cloud, "subnet", input),
    networkId: network.id,
    cidr,
    pools: input.pools ?? [
      {
        first: formatIpv4(prefix.first + (input.reservedFirst ?? 2)),
        last: formatIpv4(prefix.last - 1),
      },
    ],
    gatewayIp: input.gatewayIp === undefined ? formatIpv4(prefix.first + 1) : input.gatewayIp,
    zone: input.zone ?? null,
    isDefault: input.isDefault ?? false,
    publicAddresses: input.publicAddresses ?? false,
  });
}

/** Its route table association goes with it; ports and gateway interfaces hold it. */
export function deleteSubnet(cloud: Cloud, id: string): void {
  const { subnet, port, gateway, routeTable } = cloud.data.tables;
  find(cloud, "subnet", id);
  const held = port.by("subnet", id)[0];
  if (held !== undefined) refuse({ code: "in_use", kind: "subnet", id, by: { kind: "port", id: held.id } });
  const router = gateway.by("subnet", id)[0];
  if (router !== undefined) {
    refuse({ code: "in_use", kind: "subnet", id, by: { kind: "gateway", id: router.id } });
  }
  for (const table of routeTable.by("subnet", id)) {
    routeTable.put({
      ...table,
      associations: table.associations.filter((association) => association.subnetId !== id),
    });
  }
  subnet.delete(id);
}
