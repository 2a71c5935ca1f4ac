/** Records of the core as Neutron shows them. */
import type { Cloud } from "#devcloud/core/cloud.ts";
import { parsePrefix, formatIpv4 } from "#devcloud/core/ipv4.ts";
import type {
  AddressRecord,
  BaseRecord,
  GatewayRecord,
  GroupRecord,
  NetworkRecord,
  PortRecord,
  RuleRecord,
  SubnetRecord,
} from "#devcloud/core/records.ts";
import { isoSeconds } from "./api-call.ts";
import { extraFlag, extraNumber, extraText, extraTexts } from "./dialect-extra.ts";
import type { Body } from "./neutron-list.ts";
import { defaultZone } from "./openstack-catalog.ts";

export interface NeutronView {
  readonly cloud: Cloud;
  readonly projectId: string;
}

function common(record: BaseRecord, projectId: string): Body {
  return {
    id: record.id,
    name: record.name,
    tenant_id: projectId,
    project_id: projectId,
    description: extraText(record, "description"),
    tags: extraTexts(record, "tags"),
    created_at: isoSeconds(record.createdAt),
    updated_at: isoSeconds(extraNumber(record, "updatedAt") ?? record.createdAt),
    revision_number: extraNumber(record, "revision") ?? 1,
  };
}

export function networkBody({ cloud, projectId }: NeutronView, network: NetworkRecord): Body {
  return {
    ...common(network, projectId),
    admin_state_up: true,
    mtu: 1450,
    status: "ACTIVE",
    subnets: cloud.data.tables.subnet.by("network", network.id).map(({ id }) => id),
    shared: false,
    "router:external": network.external,
    ...(network.external ? { is_default: true } : {}),
    port_security_enabled: true,
    availability_zone_hints: [],
    availability_zones: [defaultZone],
    ipv4_address_scope: null,
    ipv6_address_scope: null,
  };
}

export function subnetBody({ projectId }: NeutronView, subnet: SubnetRecord): Body {
  return {
    ...common(subnet, projectId),
    network_id: subnet.networkId,
    ip_version: 4,
    cidr: subnet.cidr,
    gateway_ip: subnet.gatewayIp,
    allocation_pools: subnet.pools.map(({ first, last }) => ({ start: first, end: last })),
    enable_dhcp: !extraFlag(subnet, "noDhcp"),
    dns_nameservers: extraTexts(subnet, "dnsNameservers"),
    host_routes: [],
    ipv6_address_mode: null,
    ipv6_ra_mode: null,
    subnetpool_id: null,
    service_types: [],
  };
}

/** The address under which a router's servers go out: the cloud's own, the first of its loopback prefix. */
function outerFixedIps(cloud: Cloud, networkId: string): object[] {
  return cloud.data.tables.subnet.by("network", networkId).map((subnet) => ({
    subnet_id: subnet.id,
    ip_address: formatIpv4((parsePrefix(subnet.cidr)?.first ?? 0) + 1),
  }));
}

export function routerBody({ cloud, projectId }: NeutronView, router: GatewayRecord): Body {
  const { externalNetworkId } = router;
  return {
    ...common(router, projectId),
    admin_state_up: true,
    status: "ACTIVE",
    external_gateway_info:
      externalNetworkId === null
        ? null
        : {
            network_id: externalNetworkId,
            external_fixed_ips: outerFixedIps(cloud, externalNetworkId),
            enable_snat: true,
          },
    routes: [],
    distributed: false,
    ha: false,
    flavor_id: null,
    availability_zone_hints: [],
    availability_zones: [defaultZone],
  };
}

export function deviceOf(port: PortRecord): { readonly id: string; readonly owner: string } {
  if (port.serverId !== null) return { id: port.serverId, owner: `compute:${defaultZone}` };
  return { id: extraText(port, "deviceId"), owner: extraText(port, "deviceOwner") };
}

export function portBody({ cloud, projectId }: NeutronView, port: PortRecord): Body {
  const device = deviceOf(port);
  const server = port.serverId === null ? undefined : cloud.data.tables.server.get(port.serverId);
  const up = server === undefined ? device.owner !== "" : server.state === "running";
  return {
    ...common(port, projectId),
    network_id: port.networkId,
    admin_state_up: true,
    mac_address: port.mac,
    fixed_ips: [{ subnet_id: port.subnetId, ip_address: port.privateIp }],
    device_id: device.id,
    device_owner: device.owner,
    security_groups: port.groupIds,
    status: up ? "ACTIVE" : "DOWN",
    allowed_address_pairs: [],
    extra_dhcp_opts: [],
    port_security_enabled: true,
    "binding:vnic_type": "normal",
    qos_policy_id: null,
    ip_allocation: "immediate",
  };
}

export function ruleBody({ projectId }: NeutronView, rule: RuleRecord): Body {
  const { peer } = rule;
  const ipv6 = peer.kind === "cidr6" || (peer.kind === "group" && peer.family === 6);
  const { tags: _tags, name: _name, ...rest } = common(rule, projectId);
  return {
    ...rest,
    description: rule.description ?? "",
    security_group_id: rule.groupId,
    direction: rule.direction,
    ethertype: ipv6 ? "IPv6" : "IPv4",
    protocol: rule.protocol === "all" ? null : rule.protocol === "icmpv6" ? "ipv6-icmp" : rule.protocol,
    port_range_min: rule.fromPort,
    port_range_max: rule.toPort,
    remote_ip_prefix: peer.kind === "group" || extraFlag(rule, "anyPrefix") ? null : peer.cidr,
    remote_group_id: peer.kind === "group" ? peer.groupId : null,
    remote_address_group_id: null,
  };
}

export function groupBody(view: NeutronView, group: GroupRecord): Body {
  return {
    ...common(group, view.projectId),
    description: group.description,
    stateful: true,
    shared: false,
    security_group_rules: view.cloud.data.tables.rule
      .by("group", group.id)
      .map((rule) => ruleBody(view, rule)),
  };
}

/** The router that leads from a subnet to an external network. */
export function routerToOutside(
  cloud: Cloud,
  subnetId: string,
  externalNetworkId: string,
): GatewayRecord | undefined {
  return cloud.data.tables.gateway
    .by("subnet", subnetId)
    .find((router) => router.externalNetworkId === externalNetworkId);
}

export function externalNetwork(cloud: Cloud): NetworkRecord | undefined {
  for (const network of cloud.data.tables.network.values()) if (network.external) return network;
  return undefined;
}

export function floatingIpBody({ cloud, projectId }: NeutronView, address: AddressRecord): Body {
  const { association } = address;
  const floatingNetworkId = extraText(address, "networkId");
  const port = association === null ? undefined : cloud.data.tables.port.get(association.portId);
  const router = port === undefined ? undefined : routerToOutside(cloud, port.subnetId, floatingNetworkId);
  const { name: _name, ...rest } = common(address, projectId);
  return {
    ...rest,
    floating_ip_address: address.ip,
    floating_network_id: floatingNetworkId,
    router_id: router?.id ?? null,
    port_id: association?.portId ?? null,
    fixed_ip_address: association?.privateIp ?? null,
    status: association === null ? "DOWN" : "ACTIVE",
    dns_domain: "",
    dns_name: "",
    port_details: port === undefined ? null : portDetails(port),
    qos_policy_id: null,
    port_forwardings: [],
  };
}

function portDetails(port: PortRecord): object {
  const device = deviceOf(port);
  return {
    name: port.name,
    network_id: port.networkId,
    mac_address: port.mac,
    admin_state_up: true,
    status: "ACTIVE",
    device_id: device.id,
    device_owner: device.owner,
  };
}
