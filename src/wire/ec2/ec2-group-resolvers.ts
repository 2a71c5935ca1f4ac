/** Security groups and rules whose change was not answered: rules are compared by content. */
import type {
  AuthorizeSecurityGroupIngressRequest,
  DescribeSecurityGroupRulesResult,
  DescribeSecurityGroupsResult,
  ModifySecurityGroupRulesRequest,
  RevokeSecurityGroupIngressRequest,
  SecurityGroupRule,
} from "@aws-sdk/client-ec2";
import type { ResourceId } from "#kernel/ids.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import { permissionsOf } from "./ec2-group-changes.ts";
import type { Ec2Question, Ec2Resolver, Ec2Resolvers, ResolutionContext } from "./ec2-resolver.ts";
import { appliedIf, question, refused, undecided } from "./ec2-resolver.ts";
import { protocolFromEc2, ruleFromEc2, rulesFromPermissions } from "./ec2-rules.ts";

type Direction = "ingress" | "egress";

const rulesQuestion = (input: { readonly GroupId?: string | undefined }): Ec2Question[] =>
  input.GroupId === undefined ? [] : [question("DescribeSecurityGroupRules", { "group-id": input.GroupId })];

const unnamed = (context: ResolutionContext): ReturnType<Ec2Resolver["judge"]> =>
  undecided(context, "the group was given by name");

function contentIds(
  input: AuthorizeSecurityGroupIngressRequest,
  direction: Direction,
): { readonly wanted: ResourceId[]; readonly untranslated: boolean } {
  const groupId = (input.GroupId ?? "") as ResourceId;
  const { rules, untranslated } = rulesFromPermissions(groupId, direction, permissionsOf(input));
  return { wanted: rules.map(securityGroupRuleId), untranslated: untranslated.length > 0 };
}

function idOf(rule: SecurityGroupRule): ResourceId | undefined {
  const spec = ruleFromEc2(rule);
  return spec === undefined ? undefined : securityGroupRuleId(spec);
}

function authorized(direction: Direction): Ec2Resolver {
  return {
    ask: rulesQuestion,
    judge: (
      input: AuthorizeSecurityGroupIngressRequest,
      [answer]: [DescribeSecurityGroupRulesResult | undefined],
      context: ResolutionContext,
    ) => {
      if (answer === undefined) return unnamed(context);
      const { wanted, untranslated } = contentIds(input, direction);
      const rules = answer.SecurityGroupRules ?? [];
      const found = rules.filter((rule) => wanted.includes(idOf(rule) ?? ("" as ResourceId)));
      if (wanted.length === 0 || (untranslated && found.length === wanted.length)) {
        return undecided(context, "a rule of it cannot be compared");
      }
      // All or nothing: EC2 refuses the whole command when one of its rules exists already.
      return appliedIf(found.length === wanted.length, context, { SecurityGroupRules: found });
    },
  };
}

function revoked(direction: Direction): Ec2Resolver {
  return {
    ask: rulesQuestion,
    judge: (
      input: RevokeSecurityGroupIngressRequest,
      [answer]: [DescribeSecurityGroupRulesResult | undefined],
      context: ResolutionContext,
    ) => {
      if (answer === undefined) return unnamed(context);
      const { wanted } = contentIds(input, direction);
      const left = (answer.SecurityGroupRules ?? []).filter(
        (rule) =>
          wanted.includes(idOf(rule) ?? ("" as ResourceId)) ||
          input.SecurityGroupRuleIds?.includes(rule.SecurityGroupRuleId ?? ""),
      );
      return appliedIf(left.length === 0, context);
    },
  };
}

export const groupResolvers = {
  DeleteSecurityGroup: {
    ask: (input: { readonly GroupId?: string }) =>
      input.GroupId === undefined ? [] : [question("DescribeSecurityGroups", { "group-id": input.GroupId })],
    judge: (
      _input: object,
      [answer]: [DescribeSecurityGroupsResult | undefined],
      context: ResolutionContext,
    ) => (answer === undefined ? unnamed(context) : appliedIf(!answer.SecurityGroups?.length, context)),
  },
  AuthorizeSecurityGroupIngress: authorized("ingress"),
  AuthorizeSecurityGroupEgress: authorized("egress"),
  RevokeSecurityGroupIngress: revoked("ingress"),
  RevokeSecurityGroupEgress: revoked("egress"),
  ModifySecurityGroupRules: {
    ask: rulesQuestion,
    judge: (
      input: ModifySecurityGroupRulesRequest,
      [answer]: [DescribeSecurityGroupRulesResult | undefined],
      context: ResolutionContext,
    ) => {
      if (answer === undefined) return refused;
      const byId = new Map(answer.SecurityGroupRules?.map((rule) => [rule.SecurityGroupRuleId, rule]));
      const done = (input.SecurityGroupRules ?? []).every(
        ({ SecurityGroupRuleId, SecurityGroupRule: asked }) => {
          const seen = byId.get(SecurityGroupRuleId);
          return (
            seen !== undefined &&
            asked !== undefined &&
            protocolFromEc2(seen.IpProtocol) === protocolFromEc2(asked.IpProtocol) &&
            (seen.FromPort ?? -1) === (asked.FromPort ?? -1) &&
            (seen.ToPort ?? -1) === (asked.ToPort ?? -1) &&
            seen.CidrIpv4 === asked.CidrIpv4 &&
            seen.CidrIpv6 === asked.CidrIpv6 &&
            seen.ReferencedGroupInfo?.GroupId === asked.ReferencedGroupId
          );
        },
      );
      return appliedIf(done, context);
    },
  },
} satisfies Ec2Resolvers;
