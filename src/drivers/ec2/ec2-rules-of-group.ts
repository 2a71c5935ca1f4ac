import type { SecurityGroupRule } from "@aws-sdk/client-ec2";
import {
  DescribeSecurityGroupRulesCommand,
  RevokeSecurityGroupEgressCommand,
  RevokeSecurityGroupIngressCommand,
} from "@aws-sdk/client-ec2";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import { unlessGone } from "./ec2-kind.ts";

export async function rulesOfGroup(
  ec2: Ec2Connection,
  groupId: string,
  signal: AbortSignal,
): Promise<SecurityGroupRule[]> {
  const Filters = filters({ "group-id": groupId });
  const rules: SecurityGroupRule[] = [];
  const pages = ec2.pages("DescribeSecurityGroupRules", signal, (client, paging, options) =>
    client.send(new DescribeSecurityGroupRulesCommand({ Filters, ...paging }), options),
  );
  for await (const { SecurityGroupRules = [] } of pages) rules.push(...SecurityGroupRules);
  return rules;
}

/** By their own ids; a rule that is gone already is as wanted. */
export async function revokeRules(
  ec2: Ec2Connection,
  groupId: string,
  rules: readonly SecurityGroupRule[],
  signal: AbortSignal,
): Promise<void> {
  for (const egress of [false, true]) {
    const SecurityGroupRuleIds = rules
      .filter(({ IsEgress }) => (IsEgress === true) === egress)
      .flatMap(({ SecurityGroupRuleId }) => SecurityGroupRuleId ?? []);
    if (SecurityGroupRuleIds.length === 0) continue;
    const input = { GroupId: groupId, SecurityGroupRuleIds };
    await unlessGone(
      egress
        ? ec2.change("RevokeSecurityGroupEgress", signal, (client, options) =>
            client.send(new RevokeSecurityGroupEgressCommand(input), options),
          )
        : ec2.change("RevokeSecurityGroupIngress", signal, (client, options) =>
            client.send(new RevokeSecurityGroupIngressCommand(input), options),
          ),
    );
  }
}
