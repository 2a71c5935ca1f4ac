/** EC2's IpPermissions, which hold several rules each, and the core's rules, of which each is one. */
import type * as Api from "@aws-sdk/client-ec2";
import { findRuleByContent, type RuleInput } from "#devcloud/core/groups.ts";
import { parsePrefix, formatPrefix } from "#devcloud/core/ipv4.ts";
import type { GroupRecord, RulePeer, RuleRecord } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Ec2, arn, defaultNetwork, required, tagList } from "./ec2-context.ts";
import { isIPv6 } from "node:net";

const protocolNames: Readonly<Record<string, string>> = {
  "-1": "all",
  all: "all",
  "6": "tcp",
  tcp: "tcp",
  "17": "udp",
  udp: "udp",
  "1": "icmp",
  icmp: "icmp",
  "58": "icmpv6",
  icmpv6: "icmpv6",
};

function protocolOf(text: string): string {
  const known = Object.hasOwn(protocolNames, text.toLowerCase())
    ? protocolNames[text.toLowerCase()]
    : undefined;
  if (known !== undefined) return known;
  if (/^[0-9]{1,3}$/.test(text) && Number(text) <= 255) return text;
  throw new AwsProtocolError(
    "InvalidParameterValue",
    `Invalid value '${text.slice(0, 40)}' for IP protocol. Unknown protocol.`,
  );
}

export const ec2Protocol = (protocol: string): string => (protocol === "all" ? "-1" : protocol);

function checkedPorts(
  protocol: string,
  permission: Api.IpPermission,
): { fromPort: number | null; toPort: number | null } {
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "icmp" && protocol !== "icmpv6") {
    return { fromPort: null, toPort: null };
  }
  const { FromPort: from, ToPort: to } = permission;
  if (from === undefined || to === undefined) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      `Invalid value 'Must specify both from and to ports with TCP/UDP/ICMP.' for portRange.`,
    );
  }
  if (protocol === "icmp" || protocol === "icmpv6") return { fromPort: from, toPort: to };
  if (from === -1 && to === -1) return { fromPort: 0, toPort: 65_535 };
  if (from < 0 || to > 65_535 || from > to || !Number.isInteger(from) || !Number.isInteger(to)) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      `Invalid TCP/UDP port range: ${from}-${to}. Ports are 0 to 65535, the first not above the last.`,
    );
  }
  return { fromPort: from, toPort: to };
}

function groupOfPair(ec2: Ec2, pair: Api.UserIdGroupPair, owner: GroupRecord): string {
  if (pair.GroupId !== undefined) return pair.GroupId;
  const name = required(pair.GroupName, "groupId");
  const found = ec2.cloud.data.tables.group.by("name", `${owner.networkId ?? ""}/${name}`)[0];
  if (found === undefined) {
    throw new AwsProtocolError("InvalidGroup.NotFound", `The security group '${name}' does not exist`);
  }
  return found.id;
}

/** The rules that the permissions stand for; throws if there are none. */
export function rulesOf(
  ec2: Ec2,
  group: GroupRecord,
  direction: RuleRecord["direction"],
  permissions: readonly Api.IpPermission[],
): RuleInput[] {
  const rules = permissions.flatMap((permission) => {
    const protocol = protocolOf(required(permission.IpProtocol, "ipProtocol"));
    const ports = checkedPorts(protocol, permission);
    const rule = (peer: RulePeer, description: string | undefined): RuleInput => ({
      groupId: group.id,
      direction,
      protocol,
      ...ports,
      peer,
      description: description ?? null,
    });
    return [
      ...(permission.IpRanges ?? []).map((range) => {
        const cidr = required(range.CidrIp, "cidrIp");
        const prefix = parsePrefix(cidr);
        if (prefix === undefined) {
          throw new AwsProtocolError("InvalidParameterValue", `CIDR block ${cidr.slice(0, 60)} is malformed`);
        }
        return rule({ kind: "cidr4", cidr: formatPrefix(prefix) }, range.Description);
      }),
      ...(permission.Ipv6Ranges ?? []).map((range) => {
        const cidr = required(range.CidrIpv6, "cidrIpv6").toLowerCase();
        const [address = "", length = ""] = cidr.split("/", 2);
        if (!isIPv6(address) || !/^[0-9]{1,3}$/.test(length) || Number(length) > 128) {
          throw new AwsProtocolError("InvalidParameterValue", `CIDR block ${cidr.slice(0, 60)} is malformed`);
        }
        return rule({ kind: "cidr6", cidr }, range.Description);
      }),
      ...(permission.UserIdGroupPairs ?? []).map((pair) =>
        rule({ kind: "group", groupId: groupOfPair(ec2, pair, group) }, pair.Description),
      ),
    ];
  });
  if (rules.length === 0) throw new AwsProtocolError("MissingParameter", "Source group or IP range missing");
  const contents = new Set(
    rules.map((each) => JSON.stringify([each.protocol, each.fromPort, each.toPort, each.peer])),
  );
  if (contents.size !== rules.length) {
    throw new AwsProtocolError("InvalidParameterValue", "The same permission must not appear multiple times");
  }
  return rules;
}

/** The old flat form: IpProtocol, FromPort, ToPort and CidrIp or a group's name at the top level. */
export function permissionsOf(
  input: Api.AuthorizeSecurityGroupIngressCommandInput,
): readonly Api.IpPermission[] {
  if (input.IpPermissions !== undefined && input.IpPermissions.length > 0) return input.IpPermissions;
  if (input.SourceSecurityGroupName !== undefined && input.IpProtocol === undefined) {
    return [{ IpProtocol: "-1", UserIdGroupPairs: [{ GroupName: input.SourceSecurityGroupName }] }];
  }
  return [
    {
      IpProtocol: required(input.IpProtocol, "ipPermissions"),
      FromPort: input.FromPort,
      ToPort: input.ToPort,
      ...(input.CidrIp === undefined ? {} : { IpRanges: [{ CidrIp: input.CidrIp }] }),
      ...(input.SourceSecurityGroupName === undefined
        ? {}
        : { UserIdGroupPairs: [{ GroupName: input.SourceSecurityGroupName }] }),
    },
  ];
}

/** Rules with the same protocol and ports, gathered as EC2 shows them. */
export function permissionList(ec2: Ec2, rules: readonly RuleRecord[]): Api.IpPermission[] {
  const byPorts = new Map<string, Required<Api.IpPermission>>();
  for (const rule of rules) {
    const key = `${rule.protocol}|${rule.fromPort ?? ""}|${rule.toPort ?? ""}`;
    let permission = byPorts.get(key) as Api.IpPermission | undefined;
    if (permission === undefined) {
      permission = {
        IpProtocol: ec2Protocol(rule.protocol),
        ...(rule.fromPort === null ? {} : { FromPort: rule.fromPort }),
        ...(rule.toPort === null ? {} : { ToPort: rule.toPort }),
        IpRanges: [],
        Ipv6Ranges: [],
        PrefixListIds: [],
        UserIdGroupPairs: [],
      };
      byPorts.set(key, permission as Required<Api.IpPermission>);
    }
    const description = rule.description === null ? {} : { Description: rule.description };
    if (rule.peer.kind === "group") {
      permission.UserIdGroupPairs?.push({
        GroupId: rule.peer.groupId,
        UserId: ec2.accountId,
        ...description,
      });
    } else if (rule.peer.kind === "cidr4") {
      permission.IpRanges?.push({ CidrIp: rule.peer.cidr, ...description });
    } else permission.Ipv6Ranges?.push({ CidrIpv6: rule.peer.cidr, ...description });
  }
  return [...byPorts.values()];
}

export function groupRule(ec2: Ec2, rule: RuleRecord): Api.SecurityGroupRule {
  return {
    SecurityGroupRuleId: rule.id,
    GroupId: rule.groupId,
    GroupOwnerId: ec2.accountId,
    IsEgress: rule.direction === "egress",
    IpProtocol: ec2Protocol(rule.protocol),
    FromPort: rule.fromPort ?? -1,
    ToPort: rule.toPort ?? -1,
    ...(rule.peer.kind === "cidr4" ? { CidrIpv4: rule.peer.cidr } : {}),
    ...(rule.peer.kind === "cidr6" ? { CidrIpv6: rule.peer.cidr } : {}),
    ...(rule.peer.kind === "group"
      ? { ReferencedGroupInfo: { GroupId: rule.peer.groupId, UserId: ec2.accountId } }
      : {}),
    ...(rule.description === null ? {} : { Description: rule.description }),
    SecurityGroupRuleArn: arn(ec2, "security-group-rule", rule.id),
    Tags: tagList(rule.tags),
  };
}

/** By id, or by name within the default VPC. */
export function namedGroup(
  ec2: Ec2,
  input: { readonly GroupId?: string | undefined; readonly GroupName?: string | undefined },
): string {
  if (input.GroupId !== undefined) return input.GroupId;
  if (input.GroupName === undefined) {
    throw new AwsProtocolError(
      "MissingParameter",
      "The request must contain the parameter groupName or groupId",
    );
  }
  const found = ec2.cloud.data.tables.group.by("name", `${defaultNetwork(ec2).id}/${input.GroupName}`)[0];
  if (found === undefined) {
    throw new AwsProtocolError(
      "InvalidGroup.NotFound",
      `The security group '${input.GroupName}' does not exist in default VPC '${defaultNetwork(ec2).id}'`,
    );
  }
  return found.id;
}

/** The existing rules with this content; one that does not exist is `InvalidPermission.NotFound`. */
export function existingRules(ec2: Ec2, wanted: readonly RuleInput[]): RuleRecord[] {
  return wanted.map((rule) => {
    const found = findRuleByContent(ec2.cloud, rule);
    if (found === undefined) {
      throw new AwsProtocolError(
        "InvalidPermission.NotFound",
        "The specified rule does not exist in this security group.",
      );
    }
    return found;
  });
}
