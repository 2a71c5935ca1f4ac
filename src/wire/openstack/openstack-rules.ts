/** Security group rules between Neutron's bodies and the model. */
import type { ResourceId } from "#kernel/ids.ts";
import type { RulePeer, SecurityGroupRuleSpec } from "#model/resource.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import type { NeutronRule } from "./neutron.ts";
import type { MappedResource } from "./openstack-resources.ts";
import { noAddresses } from "./openstack-resources.ts";

const protocolNames: ReadonlyMap<string, string> = new Map([
  ["1", "icmp"],
  ["6", "tcp"],
  ["17", "udp"],
  ["58", "icmpv6"],
  ["ipv6-icmp", "icmpv6"],
  ["any", "all"],
  ["0", "all"],
  ["-1", "all"],
]);

/** Neutron's names for protocols that the model gives by number (neutron_lib.constants). */
const protocolNumbers: ReadonlyMap<string, string> = new Map([
  ["ah", "51"],
  ["dccp", "33"],
  ["egp", "8"],
  ["esp", "50"],
  ["gre", "47"],
  ["igmp", "2"],
  ["ipip", "4"],
  ["ospf", "89"],
  ["pgm", "113"],
  ["rsvp", "46"],
  ["sctp", "132"],
  ["udplite", "136"],
  ["vrrp", "112"],
]);

function protocolFrom(protocol: string | number | null | undefined): string {
  if (protocol === null || protocol === undefined) return "all";
  const text = String(protocol).toLowerCase();
  return protocolNames.get(text) ?? protocolNumbers.get(text) ?? text;
}

/** `undefined`: its peer is an address group, which the model does not have. */
export function ruleSpecFromBody(rule: NeutronRule): SecurityGroupRuleSpec | undefined {
  if (rule.remote_address_group_id) return undefined;
  const anywhere = rule.ethertype === "IPv6" ? "::/0" : "0.0.0.0/0";
  const peer: RulePeer = rule.remote_group_id
    ? { groupId: rule.remote_group_id as ResourceId }
    : { cidr: rule.remote_ip_prefix ?? anywhere };
  const from = rule.port_range_min;
  const to = rule.port_range_max;
  return {
    groupId: rule.security_group_id as ResourceId,
    direction: rule.direction,
    protocol: protocolFrom(rule.protocol),
    ...(typeof from === "number" ? { fromPort: from } : {}),
    ...(typeof to === "number" ? { toPort: to } : {}),
    peer,
    ...(rule.description ? { description: rule.description } : {}),
  };
}

export function ruleFromBody(rule: NeutronRule): MappedResource<"securityGroupRule"> | undefined {
  const spec = ruleSpecFromBody(rule);
  if (spec === undefined) return undefined;
  return {
    resource: { kind: "securityGroupRule", id: securityGroupRuleId(spec), spec, tags: {} },
    status: "ready",
    addresses: noAddresses,
  };
}

/** Neutron has no port 0 and takes no -1: the whole range is "no range", and any ICMP code is none. */
export function normalRule(spec: SecurityGroupRuleSpec): SecurityGroupRuleSpec {
  const { fromPort, toPort, ...rest } = spec;
  if (spec.protocol === "icmp" || spec.protocol === "icmpv6") {
    return {
      ...rest,
      ...(fromPort === undefined || fromPort < 0 ? {} : { fromPort }),
      ...(toPort === undefined || toPort < 0 ? {} : { toPort }),
    };
  }
  const whole = (fromPort === undefined || fromPort <= 0) && (toPort === undefined || toPort >= 65_535);
  if (spec.protocol === "all" || whole || fromPort === undefined || toPort === undefined || toPort < 0) {
    return rest;
  }
  return { ...rest, fromPort: Math.max(1, fromPort), toPort };
}

export interface NeutronRuleRequest {
  readonly security_group_rule: Readonly<Record<string, string | number | null>>;
}

export function ruleToBody(spec: SecurityGroupRuleSpec): NeutronRuleRequest {
  const rule = normalRule(spec);
  const ipv6 = "cidr" in rule.peer ? rule.peer.cidr.includes(":") : rule.protocol === "icmpv6";
  const named = rule.protocol === "icmpv6" ? "ipv6-icmp" : rule.protocol;
  return {
    security_group_rule: {
      security_group_id: rule.groupId,
      direction: rule.direction,
      ethertype: ipv6 ? "IPv6" : "IPv4",
      protocol: rule.protocol === "all" ? null : named,
      port_range_min: rule.fromPort ?? null,
      port_range_max: rule.toPort ?? null,
      remote_ip_prefix: "cidr" in rule.peer ? rule.peer.cidr : null,
      remote_group_id: "groupId" in rule.peer ? rule.peer.groupId : null,
      ...(rule.description === undefined ? {} : { description: rule.description }),
    },
  };
}

/** The group that a rule's content id names; `undefined` for an id that is none. */
export function groupOfRuleId(id: string): string | undefined {
  const slash = id.indexOf("/");
  return slash <= 0 ? undefined : id.slice(0, slash);
}

const ruleIdPattern = /^([^/]+)\/(ingress|egress)\/([^/]+)\/(\*|-?\d+)-(\*|-?\d+)\/(.+)$/;

/** Ids of rules that are one rule to Neutron are equal after this; any other text stays as it is. */
export function normalRuleId(id: string): string {
  const [, group, direction, protocol, from, to, peer] = ruleIdPattern.exec(id) ?? [];
  if (group === undefined || peer === undefined || protocol === undefined) return id;
  return securityGroupRuleId(
    normalRule({
      groupId: group as ResourceId,
      direction: direction === "egress" ? "egress" : "ingress",
      protocol,
      ...(from === "*" ? {} : { fromPort: Number(from) }),
      ...(to === "*" ? {} : { toPort: Number(to) }),
      peer: { cidr: peer },
    }),
  );
}
