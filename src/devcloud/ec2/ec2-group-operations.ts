/** Security groups, their rules, and key pairs. */
import type * as Api from "@aws-sdk/client-ec2";
import { find, findAll } from "#devcloud/core/cloud.ts";
import { createGroup, createRule, deleteGroup, deleteRule } from "#devcloud/core/groups.ts";
import type { GroupRecord, RuleRecord } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import {
  type Answer,
  type Ec2,
  type Operation,
  arn,
  defaultNetwork,
  required,
  requiredList,
  specifiedTags,
  tagList,
} from "./ec2-context.ts";
import { invalidValue } from "./ec2-error.ts";
import { compileFilters, type FilterFields } from "./ec2-filter.ts";
import { pageOf } from "./ec2-page.ts";
import {
  ec2Protocol,
  existingRules,
  groupRule,
  namedGroup,
  permissionList,
  permissionsOf,
  rulesOf,
} from "./ec2-permission.ts";

const allowedText = /^[a-zA-Z0-9 ._\-:/()#,@[\]+=&;{}!$*]{1,255}$/;

function securityGroup(ec2: Ec2, group: GroupRecord): Api.SecurityGroup {
  const rules = ec2.cloud.data.tables.rule.by("group", group.id);
  const towards = (direction: string): RuleRecord[] => rules.filter((rule) => rule.direction === direction);
  return {
    GroupId: group.id,
    GroupName: group.name,
    Description: group.description,
    OwnerId: ec2.accountId,
    ...(group.networkId === null ? {} : { VpcId: group.networkId }),
    IpPermissions: permissionList(ec2, towards("ingress")),
    IpPermissionsEgress: permissionList(ec2, towards("egress")),
    SecurityGroupArn: arn(ec2, "security-group", group.id),
    Tags: tagList(group.tags),
  };
}

function groupFields(ec2: Ec2): FilterFields<GroupRecord> {
  const rules =
    (direction: string, pick: (rule: RuleRecord) => string | number | null) =>
    (group: GroupRecord): (string | number | null)[] =>
      ec2.cloud.data.tables.rule
        .by("group", group.id)
        .filter((rule) => rule.direction === direction)
        .map(pick);
  const cidr = (rule: RuleRecord): string | null => (rule.peer.kind === "cidr4" ? rule.peer.cidr : null);
  const peer = (rule: RuleRecord): string | null => (rule.peer.kind === "group" ? rule.peer.groupId : null);
  return {
    "group-id": (group) => group.id,
    "group-name": (group) => group.name,
    description: (group) => group.description,
    "vpc-id": (group) => group.networkId,
    "owner-id": () => ec2.accountId,
    "ip-permission.cidr": rules("ingress", cidr),
    "ip-permission.from-port": rules("ingress", (rule) => rule.fromPort),
    "ip-permission.to-port": rules("ingress", (rule) => rule.toPort),
    "ip-permission.protocol": rules("ingress", (rule) => ec2Protocol(rule.protocol)),
    "ip-permission.group-id": rules("ingress", peer),
    "egress.ip-permission.cidr": rules("egress", cidr),
    "egress.ip-permission.group-id": rules("egress", peer),
  };
}

function authorize(
  ec2: Ec2,
  direction: RuleRecord["direction"],
  input: Api.AuthorizeSecurityGroupIngressCommandInput,
): Answer<Api.AuthorizeSecurityGroupIngressCommandOutput> {
  const group = find(ec2.cloud, "group", namedGroup(ec2, input));
  const tags = specifiedTags(input.TagSpecifications, "security-group-rule");
  const made = rulesOf(ec2, group, direction, permissionsOf(input)).map((rule) =>
    createRule(ec2.cloud, { ...rule, tags }),
  );
  return { Return: true, SecurityGroupRules: made.map((rule) => groupRule(ec2, rule)) };
}

function revoke(
  ec2: Ec2,
  direction: RuleRecord["direction"],
  input: Api.RevokeSecurityGroupIngressCommandInput,
): Answer<Api.RevokeSecurityGroupIngressCommandOutput> {
  const group = find(ec2.cloud, "group", namedGroup(ec2, input));
  const ids = input.SecurityGroupRuleIds;
  const revoked =
    ids !== undefined && ids.length > 0
      ? findAll(ec2.cloud, "rule", ids)
      : existingRules(ec2, rulesOf(ec2, group, direction, permissionsOf(input)));
  const foreign = revoked.find((rule) => rule.groupId !== group.id || rule.direction !== direction);
  if (foreign !== undefined) {
    throw new AwsProtocolError(
      "InvalidSecurityGroupRuleId.NotFound",
      `The security group rule ID '${foreign.id}' does not exist`,
    );
  }
  for (const rule of revoked) deleteRule(ec2.cloud, rule.id);
  return {
    Return: true,
    RevokedSecurityGroupRules: revoked.map((rule) => {
      const {
        SecurityGroupRuleArn: _arn,
        Tags: _tags,
        GroupOwnerId: _owner,
        ...shape
      } = groupRule(ec2, rule);
      const { ReferencedGroupInfo: peer, ...rest } = shape;
      return { ...rest, ...(peer?.GroupId === undefined ? {} : { ReferencedGroupId: peer.GroupId }) };
    }),
  };
}

function describeRules(
  ec2: Ec2,
  direction: RuleRecord["direction"],
  input: Api.UpdateSecurityGroupRuleDescriptionsIngressCommandInput,
): Answer<Api.UpdateSecurityGroupRuleDescriptionsIngressCommandOutput> {
  const group = find(ec2.cloud, "group", namedGroup(ec2, input));
  const { rule: table } = ec2.cloud.data.tables;
  for (const each of input.SecurityGroupRuleDescriptions ?? []) {
    const rule = find(ec2.cloud, "rule", required(each.SecurityGroupRuleId, "securityGroupRuleId"));
    table.put({ ...rule, description: each.Description ?? null });
  }
  if (input.IpPermissions !== undefined && input.IpPermissions.length > 0) {
    const wanted = rulesOf(ec2, group, direction, input.IpPermissions);
    for (const [index, rule] of existingRules(ec2, wanted).entries()) {
      table.put({ ...rule, description: wanted[index]?.description ?? null });
    }
  }
  return { Return: true };
}

export const groupOperations = {
  CreateSecurityGroup(
    ec2: Ec2,
    input: Api.CreateSecurityGroupCommandInput,
  ): Answer<Api.CreateSecurityGroupCommandOutput> {
    const name = required(input.GroupName, "groupName");
    const description = required(input.Description, "groupDescription");
    if (!allowedText.test(name) || name.startsWith("sg-")) throw invalidValue(name, "groupName");
    if (!allowedText.test(description)) {
      throw invalidValue(description, "GroupDescription", "Character sets beyond ASCII are not supported.");
    }
    if (name === "default") {
      throw new AwsProtocolError("InvalidParameterValue", "Cannot use reserved security group name: default");
    }
    const group = createGroup(ec2.cloud, {
      name,
      description,
      networkId: input.VpcId ?? defaultNetwork(ec2).id,
      tags: specifiedTags(input.TagSpecifications, "security-group"),
    });
    createRule(ec2.cloud, {
      groupId: group.id,
      direction: "egress",
      protocol: "all",
      fromPort: null,
      toPort: null,
      peer: { kind: "cidr4", cidr: "0.0.0.0/0" },
    });
    return {
      GroupId: group.id,
      Tags: tagList(group.tags),
      SecurityGroupArn: arn(ec2, "security-group", group.id),
    };
  },

  DeleteSecurityGroup(
    ec2: Ec2,
    input: Api.DeleteSecurityGroupCommandInput,
  ): Answer<Api.DeleteSecurityGroupCommandOutput> {
    const id = namedGroup(ec2, input);
    deleteGroup(ec2.cloud, id);
    return { Return: true, GroupId: id };
  },

  DescribeSecurityGroups(
    ec2: Ec2,
    input: Api.DescribeSecurityGroupsCommandInput,
  ): Answer<Api.DescribeSecurityGroupsCommandOutput> {
    const keep = compileFilters<GroupRecord>(input.Filters, groupFields(ec2));
    const ids = [
      ...(input.GroupIds ?? []),
      ...(input.GroupNames ?? []).map((GroupName) => namedGroup(ec2, { GroupName })),
    ];
    const all = ec2.cloud.data.tables.group.values();
    const page = pageOf(ids.length > 0 ? findAll(ec2.cloud, "group", ids) : all, keep, input);
    return { SecurityGroups: page.items.map((each) => securityGroup(ec2, each)), NextToken: page.nextToken };
  },

  AuthorizeSecurityGroupIngress(ec2: Ec2, input: Api.AuthorizeSecurityGroupIngressCommandInput): object {
    return authorize(ec2, "ingress", input);
  },
  AuthorizeSecurityGroupEgress(ec2: Ec2, input: Api.AuthorizeSecurityGroupEgressCommandInput): object {
    return authorize(ec2, "egress", input);
  },
  RevokeSecurityGroupIngress(ec2: Ec2, input: Api.RevokeSecurityGroupIngressCommandInput): object {
    return revoke(ec2, "ingress", input);
  },
  RevokeSecurityGroupEgress(ec2: Ec2, input: Api.RevokeSecurityGroupEgressCommandInput): object {
    return revoke(ec2, "egress", input);
  },
  UpdateSecurityGroupRuleDescriptionsIngress(
    ec2: Ec2,
    input: Api.UpdateSecurityGroupRuleDescriptionsIngressCommandInput,
  ): object {
    return describeRules(ec2, "ingress", input);
  },
  UpdateSecurityGroupRuleDescriptionsEgress(
    ec2: Ec2,
    input: Api.UpdateSecurityGroupRuleDescriptionsEgressCommandInput,
  ): object {
    return describeRules(ec2, "egress", input);
  },

  ModifySecurityGroupRules(
    ec2: Ec2,
    input: Api.ModifySecurityGroupRulesCommandInput,
  ): Answer<Api.ModifySecurityGroupRulesCommandOutput> {
    const group = find(ec2.cloud, "group", required(input.GroupId, "groupId"));
    const { rule: table } = ec2.cloud.data.tables;
    for (const update of requiredList(input.SecurityGroupRules, "securityGroupRule")) {
      const rule = find(ec2.cloud, "rule", required(update.SecurityGroupRuleId, "securityGroupRuleId"));
      if (rule.groupId !== group.id) throw invalidValue(rule.id, "securityGroupRuleId");
      const wanted = update.SecurityGroupRule ?? {};
      const description = wanted.Description === undefined ? {} : { Description: wanted.Description };
      const [changed] = rulesOf(ec2, group, rule.direction, [
        {
          IpProtocol: wanted.IpProtocol,
          FromPort: wanted.FromPort,
          ToPort: wanted.ToPort,
          ...(wanted.CidrIpv4 ? { IpRanges: [{ CidrIp: wanted.CidrIpv4, ...description }] } : {}),
          ...(wanted.CidrIpv6 ? { Ipv6Ranges: [{ CidrIpv6: wanted.CidrIpv6, ...description }] } : {}),
          ...(wanted.ReferencedGroupId
            ? { UserIdGroupPairs: [{ GroupId: wanted.ReferencedGroupId, ...description }] }
            : {}),
        },
      ]);
      if (changed === undefined) continue;
      table.delete(rule.id);
      const made = createRule(ec2.cloud, { ...changed, tags: rule.tags });
      table.delete(made.id);
      table.put({ ...made, id: rule.id, createdAt: rule.createdAt });
    }
    return { Return: true };
  },

  DescribeSecurityGroupRules(
    ec2: Ec2,
    input: Api.DescribeSecurityGroupRulesCommandInput,
  ): Answer<Api.DescribeSecurityGroupRulesCommandOutput> {
    const keep = compileFilters<RuleRecord>(input.Filters, {
      "group-id": (rule) => rule.groupId,
      "security-group-rule-id": (rule) => rule.id,
    });
    const ids = input.SecurityGroupRuleIds;
    const all = ec2.cloud.data.tables.rule.values();
    const page = pageOf(ids?.length ? findAll(ec2.cloud, "rule", ids) : all, keep, input);
    return { SecurityGroupRules: page.items.map((each) => groupRule(ec2, each)), NextToken: page.nextToken };
  },
} satisfies Readonly<Record<string, Operation>>;
