/** Rules, one by one. Their id is their content, which begins with the group's id. */
import type { SecurityGroupRule } from "@aws-sdk/client-ec2";
import {
  AuthorizeSecurityGroupEgressCommand,
  AuthorizeSecurityGroupIngressCommand,
  DescribeSecurityGroupRulesCommand,
  UpdateSecurityGroupRuleDescriptionsEgressCommand,
  UpdateSecurityGroupRuleDescriptionsIngressCommand,
} from "@aws-sdk/client-ec2";
import type { Observed } from "#cloud/contract.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import { ruleResourceFromEc2 } from "#wire/ec2/ec2-resources.ts";
import { permissionToEc2, rulesFromPermissions } from "#wire/ec2/ec2-rules.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { isRemote, markedTags, missing, observed } from "./ec2-kind.ts";
import { revokeRules, rulesOfGroup } from "./ec2-rules-of-group.ts";

function observeRule(rule: SecurityGroupRule): Observed<"securityGroupRule">[] {
  const resource = ruleResourceFromEc2(rule);
  return resource === undefined ? [] : [observed(resource)];
}

const groupOf = (id: ResourceId): string => id.split("/")[0] ?? "";

export function ec2SecurityRules(ec2: Ec2Connection): Ec2Kind<"securityGroupRule"> {
  async function find(id: ResourceId, signal: AbortSignal): Promise<SecurityGroupRule | undefined> {
    const rules = await rulesOfGroup(ec2, groupOf(id), signal);
    return rules.find((rule) => ruleResourceFromEc2(rule)?.id === id);
  }

  return {
    pages: async function* (select, ids, signal) {
      const groups = ids === undefined ? undefined : [...new Set(ids.map(groupOf))];
      const Filters = filters({ "group-id": groups });
      const answers = ec2.pages("DescribeSecurityGroupRules", signal, (client, paging, options) =>
        client.send(
          new DescribeSecurityGroupRulesCommand({ Filters: [...select, ...Filters], ...paging }),
          options,
        ),
      );
      for await (const { SecurityGroupRules = [] } of answers) {
        const rules = SecurityGroupRules.flatMap(observeRule);
        yield ids === undefined ? rules : rules.filter(({ resource }) => ids.includes(resource.id));
      }
    },
    tagTarget: async (id, signal) => (await find(id, signal))?.SecurityGroupRuleId,
    create: async (request, signal) => {
      const { kind, spec, tags } = request;
      const permission = permissionToEc2(spec);
      // EC2's own form of the rule has the id under which it is found again.
      const [canonical = spec] = rulesFromPermissions(spec.groupId, spec.direction, [permission]).rules;
      const input = {
        GroupId: spec.groupId,
        IpPermissions: [permission],
        TagSpecifications: markedTags(request, "security-group-rule"),
      };
      const authorized: Promise<unknown> =
        spec.direction === "ingress"
          ? ec2.change("AuthorizeSecurityGroupIngress", signal, (client, options) =>
              client.send(new AuthorizeSecurityGroupIngressCommand(input), options),
            )
          : ec2.change("AuthorizeSecurityGroupEgress", signal, (client, options) =>
              client.send(new AuthorizeSecurityGroupEgressCommand(input), options),
            );
      // The same content is the same rule, whoever made it.
      await authorized.catch((error: unknown) => {
        if (!isRemote(error, "InvalidPermission.Duplicate")) throw error;
      });
      const id = securityGroupRuleId(canonical);
      return observed<"securityGroupRule">({ kind, id, spec: canonical, tags });
    },
    update: async (id, set, signal) => {
      const { description, ...others } = set;
      if (Object.keys(others).length > 0) {
        const message = `rule ${id} is its content: make another one instead of changing it`;
        throw new OperationalError("cloud.unsupported", message);
      }
      const rule = await find(id, signal);
      if (rule === undefined) throw missing("security group rule", id);
      const input = {
        GroupId: groupOf(id),
        SecurityGroupRuleDescriptions: [
          { SecurityGroupRuleId: rule.SecurityGroupRuleId, Description: description ?? "" },
        ],
      };
      await (rule.IsEgress === true
        ? ec2.change("UpdateSecurityGroupRuleDescriptionsEgress", signal, (client, options) =>
            client.send(new UpdateSecurityGroupRuleDescriptionsEgressCommand(input), options),
          )
        : ec2.change("UpdateSecurityGroupRuleDescriptionsIngress", signal, (client, options) =>
            client.send(new UpdateSecurityGroupRuleDescriptionsIngressCommand(input), options),
          ));
    },
    delete: async (id, signal) => {
      try {
        const rule = await find(id, signal);
        if (rule !== undefined) await revokeRules(ec2, groupOf(id), [rule], signal);
      } catch (error) {
        if (!isOperational(error, "cloud.not_found")) throw error;
      }
    },
  };
}
