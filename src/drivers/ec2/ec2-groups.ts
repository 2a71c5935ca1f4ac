/** Security groups. One of ours has only the rules that were asked for: EC2's default egress rule is taken away. */
import type { SecurityGroupRule } from "@aws-sdk/client-ec2";
import {
  CreateSecurityGroupCommand,
  DeleteSecurityGroupCommand,
  DescribeSecurityGroupsCommand,
} from "@aws-sdk/client-ec2";
import type { Observed } from "#cloud/contract.ts";
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { groupFromEc2 } from "#wire/ec2/ec2-resources.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { firstOf, markedTags, observed, tokenFilter, unlessGone } from "./ec2-kind.ts";
import { revokeRules, rulesOfGroup } from "./ec2-rules-of-group.ts";
import { createOnce } from "./ec2-tokenless.ts";

/** Ours bear tags, so that an egress rule that someone asked for is never taken for the default one. */
function isDefaultEgress(rule: SecurityGroupRule): boolean {
  const everywhere = rule.CidrIpv4 === "0.0.0.0/0" || rule.CidrIpv6 === "::/0";
  return rule.IsEgress === true && rule.IpProtocol === "-1" && everywhere && !rule.Tags?.length;
}

export function ec2Groups(ec2: Ec2Connection): Ec2Kind<"securityGroup"> {
  const pages: Ec2Kind<"securityGroup">["pages"] = async function* (select, ids, signal) {
    const Filters = [...select, ...filters({ "group-id": ids })];
    const answers = ec2.pages("DescribeSecurityGroups", signal, (client, paging, options) =>
      client.send(new DescribeSecurityGroupsCommand({ Filters, ...paging }), options),
    );
    for await (const { SecurityGroups = [] } of answers) {
      yield SecurityGroups.map((group): Observed<"securityGroup"> => observed(groupFromEc2(group)));
    }
  };

  const remove = (id: ResourceId, signal: AbortSignal): Promise<void> =>
    unlessGone(
      ec2.change("DeleteSecurityGroup", signal, (client, options) =>
        client.send(new DeleteSecurityGroupCommand({ GroupId: id }), options),
      ),
    );

  /** Rules of other groups that name this one; they are links to it, and go with it. */
  async function revokeRulesNaming(id: ResourceId, signal: AbortSignal): Promise<boolean> {
    const naming = new Set<ResourceId>();
    for (const filter of ["ip-permission.group-id", "egress.ip-permission.group-id"]) {
      for await (const page of pages(filters({ [filter]: id }), undefined, signal)) {
        for (const { resource } of page) naming.add(resource.id);
      }
    }
    let revoked = false;
    for (const groupId of naming) {
      const rules = await rulesOfGroup(ec2, groupId, signal);
      const doomed = rules.filter(({ ReferencedGroupInfo: peer }) => peer?.GroupId === id);
      await revokeRules(ec2, groupId, doomed, signal);
      revoked ||= doomed.length > 0;
    }
    return revoked;
  }

  return {
    pages,
    tagTarget: async (id) => id,
    create: async (request, signal) => {
      const { kind, spec, tags } = request;
      const id = await createOnce(ec2, request, signal, {
        find: async () =>
          (await firstOf(pages([tokenFilter(request.token)], undefined, signal)))?.resource.id,
        make: async () => {
          const input = {
            GroupName: spec.name,
            // EC2 takes no empty description.
            Description: spec.description || spec.name,
            VpcId: spec.networkId,
            TagSpecifications: markedTags(request, "security-group"),
          };
          const answer = await ec2.change("CreateSecurityGroup", signal, (client, options) =>
            client.send(new CreateSecurityGroupCommand(input), options),
          );
          return answer.GroupId as ResourceId | undefined;
        },
      });
      await onceThere(async () => {
        const rules = await rulesOfGroup(ec2, id, signal);
        await revokeRules(ec2, id, rules.filter(isDefaultEgress), signal);
      });
      return observed<"securityGroup">({ kind, id, spec, tags });
    },
    update: async (id) => {
      throw new OperationalError("cloud.unsupported", `nothing of security group ${id} can be changed`);
    },
    delete: async (id, signal) => {
      try {
        await remove(id, signal);
      } catch (error) {
        if (!isOperational(error, "cloud.conflict")) throw error;
        if (!(await revokeRulesNaming(id, signal))) throw error;
        await remove(id, signal);
      }
    },
  };
}
