/** Security group rules: EC2's permission lists and rule objects <-> the model's single rules. */
import type { IpPermission, SecurityGroupRule } from "@aws-sdk/client-ec2";
import type { ResourceId } from "#kernel/ids.ts";
import type { RulePeer, SecurityGroupRuleSpec } from "#model/resource.ts";

const protocolNames: ReadonlyMap<string, string> = new Map([
  ["-1", "all"],
  ["1", "icmp"],
  ["6", "tcp"],
  ["17", "udp"],
  ["58", "icmpv6"],
]);

export function protocolFromEc2(text: string | undefined): string {
  const name = (text ?? "-1").toLowerCase();
  return protocolNames.get(name) ?? name;
}

export function protocolToEc2(protocol: string): string {
  return protocol === "all" ? "-1" : protocol;
}

const hasPorts: ReadonlySet<string> = new Set(["tcp", "udp", "icmp", "icmpv6"]);

/** -1, and for tcp and udp the whole range, stand for every port (icmp: every type): the model has neither then. */
function portsFromEc2(
  protocol: string,
  from: number | undefined,
  to: number | undefined,
): Pick<SecurityGroupRuleSpec, "fromPort" | "toPort"> {
  if (!hasPorts.has(protocol) || from === undefined || from === -1) return {};
  if ((protocol === "tcp" || protocol === "udp") && from === 0 && to === 65_535) return {};
  return { fromPort: from, ...(to === undefined ? {} : { toPort: to }) };
}

function ruleSpec(
  base: Pick<SecurityGroupRuleSpec, "groupId" | "direction">,
  shape: {
    IpProtocol?: string | undefined;
    FromPort?: number | undefined;
    ToPort?: number | undefined;
  },
  peer: RulePeer,
  description: string | undefined,
): SecurityGroupRuleSpec {
  const protocol = protocolFromEc2(shape.IpProtocol);
  return {
    ...base,
    protocol,
    ...portsFromEc2(protocol, shape.FromPort, shape.ToPort),
    peer,
    ...(description === undefined || description === "" ? {} : { description }),
  };
}

export interface PermissionRules {
  readonly rules: readonly SecurityGroupRuleSpec[];
  /** Peers that the model has no words for: prefix lists, groups named without an id. */
  readonly untranslated: readonly string[];
}

export function rulesFromPermissions(
  groupId: ResourceId,
  direction: "ingress" | "egress",
  permissions: readonly IpPermission[],
): PermissionRules {
  const rules: SecurityGroupRuleSpec[] = [];
  const untranslated: string[] = [];
  for (const permission of permissions) {
    const add = (peer: RulePeer, description: string | undefined): void => {
      rules.push(ruleSpec({ groupId, direction }, permission, peer, description));
    };
    for (const range of permission.IpRanges ?? []) {
      if (range.CidrIp !== undefined) add({ cidr: range.CidrIp }, range.Description);
    }
    for (const range of permission.Ipv6Ranges ?? []) {
      if (range.CidrIpv6 !== undefined) add({ cidr: range.CidrIpv6 }, range.Description);
    }
    for (const pair of permission.UserIdGroupPairs ?? []) {
      if (pair.GroupId === undefined) untranslated.push(`the group named ${pair.GroupName ?? "?"}`);
      else add({ groupId: pair.GroupId as ResourceId }, pair.Description);
    }
    for (const list of permission.PrefixListIds ?? []) {
      untranslated.push(`the prefix list ${list.PrefixListId ?? "?"}`);
    }
  }
  return { rules, untranslated };
}

/** `undefined`: its peer is a prefix list. */
export function ruleFromEc2(rule: SecurityGroupRule): SecurityGroupRuleSpec | undefined {
  const cidr = rule.CidrIpv4 ?? rule.CidrIpv6;
  const peerGroup = rule.ReferencedGroupInfo?.GroupId;
  let peer: RulePeer;
  if (cidr !== undefined) peer = { cidr };
  else if (peerGroup !== undefined) peer = { groupId: peerGroup as ResourceId };
  else return undefined;
  const groupId = (rule.GroupId ?? "") as ResourceId;
  const direction = rule.IsEgress === true ? "egress" : "ingress";
  return ruleSpec({ groupId, direction }, rule, peer, rule.Description);
}

export function permissionToEc2(spec: SecurityGroupRuleSpec): IpPermission {
  const described = spec.description === undefined ? {} : { Description: spec.description };
  const portless = hasPorts.has(spec.protocol) ? { FromPort: -1, ToPort: -1 } : {};
  // EC2 refuses tcp and udp without ports in a permission, except as the whole range.
  const everyPort =
    spec.protocol === "tcp" || spec.protocol === "udp" ? { FromPort: 0, ToPort: 65_535 } : portless;
  const ports =
    spec.fromPort === undefined ? everyPort : { FromPort: spec.fromPort, ToPort: spec.toPort ?? -1 };
  return {
    IpProtocol: protocolToEc2(spec.protocol),
    ...ports,
    ...permissionPeer(spec.peer, described),
  };
}

function permissionPeer(peer: RulePeer, described: { Description?: string }): IpPermission {
  if ("groupId" in peer) return { UserIdGroupPairs: [{ GroupId: peer.groupId, ...described }] };
  return peer.cidr.includes(":")
    ? { Ipv6Ranges: [{ CidrIpv6: peer.cidr, ...described }] }
    : { IpRanges: [{ CidrIp: peer.cidr, ...described }] };
}

/** What EC2 gives every new group of a VPC. */
export function defaultEgressRule(groupId: ResourceId): SecurityGroupRuleSpec {
  return { groupId, direction: "egress", protocol: "all", peer: { cidr: "0.0.0.0/0" } };
}
