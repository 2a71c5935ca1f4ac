/** Commands on security groups and their rules. */
import type {
  AuthorizeSecurityGroupIngressRequest,
  AuthorizeSecurityGroupIngressResult,
  CreateSecurityGroupRequest,
  CreateSecurityGroupResult,
  DeleteSecurityGroupRequest,
  DeleteSecurityGroupResult,
  IpPermission,
  ModifySecurityGroupRulesRequest,
  RevokeSecurityGroupIngressRequest,
  RevokeSecurityGroupIngressResult,
  UpdateSecurityGroupRuleDescriptionsIngressRequest,
} from "@aws-sdk/client-ec2";
import type { ResourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { SecurityGroupRuleSpec, Tags } from "#model/resource.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import type { Ec2Effect, Ec2Translators, FieldFinding, KnownResources } from "./ec2-effect.ts";
import { changed, fieldGaps, id, joinEffects, missingReference } from "./ec2-effect.ts";
import { defaultEgressRule, ruleFromEc2, rulesFromPermissions } from "./ec2-rules.ts";
import { tagsAskedFor, tagsFromEc2, tagsOfCreated } from "./ec2-tags.ts";

type Direction = SecurityGroupRuleSpec["direction"];

const prefixList: FieldFinding = {
  severity: "lost",
  message: "a rule for a prefix list is not carried over: name its prefixes in rules of their own",
};

function createRule(spec: SecurityGroupRuleSpec, tags: Tags, alias: string | undefined): Change {
  return {
    type: "create",
    kind: "securityGroupRule",
    id: securityGroupRuleId(spec),
    spec,
    tags,
    ...(alias === undefined ? {} : { aliases: [id(alias)] }),
  };
}

const deleteRule = (ruleId: ResourceId): Change => ({
  type: "delete",
  kind: "securityGroupRule",
  id: ruleId,
});

/** The old form: one rule in the request's own members. */
export function permissionsOf(input: AuthorizeSecurityGroupIngressRequest): IpPermission[] {
  if (input.IpPermissions?.length) return input.IpPermissions;
  if (input.CidrIp === undefined && input.SourceSecurityGroupName === undefined) return [];
  return [
    {
      IpProtocol: input.IpProtocol,
      FromPort: input.FromPort,
      ToPort: input.ToPort,
      ...(input.CidrIp === undefined
        ? { UserIdGroupPairs: [{ GroupName: input.SourceSecurityGroupName }] }
        : { IpRanges: [{ CidrIp: input.CidrIp }] }),
    },
  ];
}

function unnamedGroup(operation: string, name: string | undefined): Ec2Effect {
  return missingReference(
    operation,
    `the group was given by its name ${name ?? "?"} and the cloud's answer has no id: name groups by id`,
  );
}

function authorize(direction: Direction) {
  const operation = `AuthorizeSecurityGroup${direction === "ingress" ? "Ingress" : "Egress"}`;
  return (
    input: AuthorizeSecurityGroupIngressRequest,
    output: AuthorizeSecurityGroupIngressResult,
  ): Ec2Effect => {
    const answered = output.SecurityGroupRules ?? [];
    const groupId = input.GroupId ?? answered[0]?.GroupId;
    if (groupId === undefined) return unnamedGroup(operation, input.GroupName);
    const resource = { kind: "securityGroup", id: groupId } as const;
    if (answered.length > 0) {
      const specs = answered.map((rule) => ({ rule, spec: ruleFromEc2(rule) }));
      return {
        changes: specs.flatMap(({ rule, spec }) =>
          spec === undefined ? [] : createRule(spec, tagsFromEc2(rule.Tags), rule.SecurityGroupRuleId),
        ),
        gaps: fieldGaps(
          operation,
          resource,
          specs.some(({ spec }) => spec === undefined) ? [prefixList] : [],
        ),
      };
    }
    const tags = tagsAskedFor(input.TagSpecifications, "security-group-rule");
    const { rules, untranslated } = rulesFromPermissions(id(groupId), direction, permissionsOf(input));
    const findings = untranslated.map((peer): FieldFinding => ({
      severity: "lost",
      message: `a rule for ${peer} is not carried over`,
    }));
    return {
      changes: rules.map((spec) => createRule(spec, tags, undefined)),
      gaps: fieldGaps(operation, resource, findings),
    };
  };
}

function revoke(direction: Direction) {
  const operation = `RevokeSecurityGroup${direction === "ingress" ? "Ingress" : "Egress"}`;
  return (input: RevokeSecurityGroupIngressRequest, output: RevokeSecurityGroupIngressResult): Ec2Effect => {
    const byId = (input.SecurityGroupRuleIds ?? []).map((ruleId) => deleteRule(id(ruleId)));
    const permissions = permissionsOf(input);
    if (permissions.length === 0) return changed(...byId);
    const groupId = input.GroupId ?? output.RevokedSecurityGroupRules?.[0]?.GroupId;
    if (groupId === undefined) return unnamedGroup(operation, input.GroupName);
    // A rule that the model never held (a prefix list's) needs no deletion either.
    const { rules } = rulesFromPermissions(id(groupId), direction, permissions);
    const unknown = rulesFromPermissions(id(groupId), direction, output.UnknownIpPermissions ?? []);
    const stays = new Set(unknown.rules.map(securityGroupRuleId));
    const ids = rules.map(securityGroupRuleId).filter((ruleId) => !stays.has(ruleId));
    return changed(...byId, ...ids.map(deleteRule));
  };
}

/** A rule's id is its content, so that new content is another rule; its `sgr-...` then names the new one. */
function modifyRules(
  input: ModifySecurityGroupRulesRequest,
  _output: object,
  known: KnownResources,
): Ec2Effect {
  return joinEffects(
    (input.SecurityGroupRules ?? []).map(({ SecurityGroupRuleId: ruleId, SecurityGroupRule: asked }) => {
      const before = known.get("securityGroupRule", ruleId ?? "");
      if (before?.kind !== "securityGroupRule" || asked === undefined) {
        return missingReference(
          "ModifySecurityGroupRules",
          `the rule ${ruleId ?? "?"} was changed, but it is not recorded: read the environment again`,
        );
      }
      const { ReferencedGroupId: peerGroup, ...content } = asked;
      const spec = ruleFromEc2({
        ...content,
        GroupId: input.GroupId,
        IsEgress: before.spec.direction === "egress",
        ...(peerGroup === undefined ? {} : { ReferencedGroupInfo: { GroupId: peerGroup } }),
      });
      const resource = { kind: "securityGroup", id: input.GroupId ?? "" } as const;
      return {
        changes: [
          deleteRule(before.id),
          ...(spec === undefined ? [] : [createRule(spec, before.tags, ruleId)]),
        ],
        gaps: fieldGaps("ModifySecurityGroupRules", resource, spec === undefined ? [prefixList] : []),
      };
    }),
  );
}

function describeRules(direction: Direction) {
  const operation = `UpdateSecurityGroupRuleDescriptions${direction === "ingress" ? "Ingress" : "Egress"}`;
  return (input: UpdateSecurityGroupRuleDescriptionsIngressRequest): Ec2Effect => {
    const update = (ruleId: ResourceId, description: string): Change => ({
      type: "update",
      kind: "securityGroupRule",
      id: ruleId,
      set: { description },
    });
    const byId = (input.SecurityGroupRuleDescriptions ?? []).map((item) =>
      update(id(item.SecurityGroupRuleId), item.Description ?? ""),
    );
    if (!input.IpPermissions?.length) return changed(...byId);
    if (input.GroupId === undefined) return unnamedGroup(operation, input.GroupName);
    const { rules } = rulesFromPermissions(id(input.GroupId), direction, input.IpPermissions);
    return changed(
      ...byId,
      ...rules.map((spec) => update(securityGroupRuleId(spec), spec.description ?? "")),
    );
  };
}

export const groupTranslators = {
  CreateSecurityGroup: (input: CreateSecurityGroupRequest, output: CreateSecurityGroupResult) => {
    const groupId = id(output.GroupId);
    return changed(
      {
        type: "create",
        kind: "securityGroup",
        id: groupId,
        spec: {
          ...(input.VpcId ? { networkId: id(input.VpcId) } : {}),
          name: input.GroupName ?? "",
          description: input.Description ?? "",
        },
        tags: tagsOfCreated(output.Tags, input.TagSpecifications, "security-group"),
      },
      createRule(defaultEgressRule(groupId), {}, undefined),
    );
  },
  DeleteSecurityGroup: (input: DeleteSecurityGroupRequest, output: DeleteSecurityGroupResult) => {
    const groupId = input.GroupId ?? output.GroupId;
    if (groupId === undefined) return unnamedGroup("DeleteSecurityGroup", input.GroupName);
    return changed({ type: "delete", kind: "securityGroup", id: id(groupId) });
  },
  AuthorizeSecurityGroupIngress: authorize("ingress"),
  AuthorizeSecurityGroupEgress: authorize("egress"),
  RevokeSecurityGroupIngress: revoke("ingress"),
  RevokeSecurityGroupEgress: revoke("egress"),
  ModifySecurityGroupRules: modifyRules,
  UpdateSecurityGroupRuleDescriptionsIngress: describeRules("ingress"),
  UpdateSecurityGroupRuleDescriptionsEgress: describeRules("egress"),
} satisfies Ec2Translators;
