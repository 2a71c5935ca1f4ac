/** Security groups and their rules. */
import { find, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { checkQuota } from "./quotas.ts";
import type { GroupRecord, RulePeer, RuleRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

export interface GroupInput extends Naming {
  readonly name: string;
  readonly networkId?: string | null;
  readonly description: string;
  readonly isDefault?: boolean;
  /** Names are unique within a network (EC2); OpenStack allows any number of the same. */
  readonly uniqueName?: boolean;
}

export function createGroup(cloud: Cloud, input: GroupInput): GroupRecord {
  const { group } = cloud.data.tables;
  const networkId = input.networkId ?? null;
  if (networkId !== null) find(cloud, "network", networkId);
  if ((input.uniqueName ?? true) && group.countBy("name", `${networkId ?? ""}/${input.name}`) > 0) {
    refuse({
      code: "duplicate",
      kind: "group",
      name: input.name,
      ...(networkId === null ? {} : { within: networkId }),
    });
  }
  checkQuota(cloud.quotas, "groups", group.size);
  return group.put({
    ...newRecord(cloud, "group", input),
    networkId,
    description: input.description,
    isDefault: input.isDefault ?? false,
  });
}

/** Refused for a default group, and while ports or other groups' rules use it. Its own rules go with it. */
export function deleteGroup(cloud: Cloud, id: string): void {
  const { group, rule, port } = cloud.data.tables;
  const record = find(cloud, "group", id);
  if (record.isDefault) {
    refuse({
      code: "not_permitted",
      message: `the specified group: "${id}" name: "default" cannot be deleted by a user`,
    });
  }
  const held = port.by("group", id)[0];
  if (held !== undefined) refuse({ code: "in_use", kind: "group", id, by: { kind: "port", id: held.id } });
  const referring = rule.by("peerGroup", id).find((each) => each.groupId !== id);
  if (referring !== undefined) {
    refuse({ code: "in_use", kind: "group", id, by: { kind: "group", id: referring.groupId } });
  }
  for (const own of rule.by("group", id)) rule.delete(own.id);
  group.delete(id);
}

export interface RuleInput extends Naming {
  readonly groupId: string;
  readonly direction: RuleRecord["direction"];
  readonly protocol: string;
  readonly fromPort: number | null;
  readonly toPort: number | null;
  readonly peer: RulePeer;
  readonly description?: string | null;
}

/** Two rules with the same content are the same rule. */
export function ruleContent(rule: Omit<RuleInput, "name" | "tags" | "extra" | "description">): string {
  const peer =
    rule.peer.kind === "group" ? `${rule.peer.groupId}${rule.peer.family === 6 ? "/6" : ""}` : rule.peer.cidr;
  return [rule.direction, rule.protocol, rule.fromPort ?? "*", rule.toPort ?? "*", peer].join("|");
}

export function findRuleByContent(cloud: Cloud, rule: RuleInput): RuleRecord | undefined {
  const content = ruleContent(rule);
  return cloud.data.tables.rule.by("group", rule.groupId).find((each) => ruleContent(each) === content);
}

export function createRule(cloud: Cloud, input: RuleInput): RuleRecord {
  const { rule } = cloud.data.tables;
  find(cloud, "group", input.groupId);
  if (input.peer.kind === "group") find(cloud, "group", input.peer.groupId);
  if (findRuleByContent(cloud, input) !== undefined) {
    refuse({ code: "duplicate", kind: "rule", name: ruleContent(input), within: input.groupId });
  }
  const siblings = rule.by("group", input.groupId).filter((each) => each.direction === input.direction);
  checkQuota(cloud.quotas, "rulesPerGroup", siblings.length);
  return rule.put({
    ...newRecord(cloud, "rule", input),
    groupId: input.groupId,
    direction: input.direction,
    protocol: input.protocol,
    fromPort: input.fromPort,
    toPort: input.toPort,
    peer: input.peer,
    description: input.description ?? null,
  });
}

export function deleteRule(cloud: Cloud, id: string): void {
  find(cloud, "rule", id);
  cloud.data.tables.rule.delete(id);
}
