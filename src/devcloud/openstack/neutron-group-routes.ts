/** Security groups, with the rules that Neutron makes with each, and rules. */
import { z } from "zod";
import type { Cloud } from "#devcloud/core/cloud.ts";
import { find } from "#devcloud/core/cloud.ts";
import {
  createGroup,
  createRule,
  deleteGroup,
  deleteRule,
  findRuleByContent,
} from "#devcloud/core/groups.ts";
import type { RuleInput } from "#devcloud/core/groups.ts";
import { formatPrefix, parsePrefix } from "#devcloud/core/ipv4.ts";
import type { GroupRecord, RulePeer, RuleRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { changedExtra } from "./dialect-extra.ts";
import { groupBody, ruleBody } from "./neutron-bodies.ts";
import { listAnswer } from "./neutron-list.ts";
import { ignored, neutronName, neutronText, recordsWithIds, viewOf } from "./neutron-request.ts";
import { isIPv6 } from "node:net";

const anywhere: readonly RulePeer[] = [
  { kind: "cidr4", cidr: "0.0.0.0/0" },
  { kind: "cidr6", cidr: "::/0" },
];

function wholeRule(groupId: string, direction: RuleRecord["direction"], peer: RulePeer): RuleInput {
  return {
    groupId,
    direction,
    protocol: "all",
    fromPort: null,
    toPort: null,
    peer,
    extra: { anyPrefix: true },
  };
}

/** A group lets everything out, of either family, until somebody takes these rules away. */
export function createNeutronGroup(
  cloud: Cloud,
  name: string,
  description: string,
  isDefault = false,
): GroupRecord {
  const group = createGroup(cloud, { name, description, uniqueName: false, isDefault });
  for (const peer of anywhere) createRule(cloud, wholeRule(group.id, "egress", peer));
  if (!isDefault) return group;
  for (const family of [4, 6] as const) {
    createRule(cloud, wholeRule(group.id, "ingress", { kind: "group", groupId: group.id, family }));
  }
  return group;
}

export function defaultGroup(cloud: Cloud): GroupRecord {
  const { group } = cloud.data.tables;
  const known = group.by("name", "/default").find((each) => each.isDefault);
  return known ?? createNeutronGroup(cloud, "default", "Default security group", true);
}

const groupSet = z.object({
  security_group: z.strictObject({
    ...ignored,
    name: neutronName.optional(),
    description: neutronText.optional(),
    stateful: z.literal(true).optional(),
  }),
});

function postGroup(call: Call): Answer {
  const { security_group: group } = bodyOf(call, groupSet);
  if (group.name === "default") {
    throw new ApiError(409, "Default security group already exists.", "SecurityGroupDefaultAlreadyExists");
  }
  const made = createNeutronGroup(call.cloud, group.name ?? "", group.description ?? "");
  return json(201, { security_group: groupBody(viewOf(call), made) });
}

function putGroup(call: Call): Answer {
  const { security_group: set } = bodyOf(call, groupSet);
  const group = find(call.cloud, "group", param(call));
  if (group.isDefault && set.name !== undefined && set.name !== group.name) {
    throw new ApiError(
      409,
      "Updating default security group not allowed.",
      "SecurityGroupCannotUpdateDefault",
    );
  }
  const changed = call.cloud.data.tables.group.put({
    ...group,
    name: set.name ?? group.name,
    description: set.description ?? group.description,
    extra: changedExtra(group, call.cloud.clock.now()),
  });
  return json(200, { security_group: groupBody(viewOf(call), changed) });
}

/** Rules of other groups that name it go with it, as Neutron's database cascades. */
function removeGroup(call: Call): Answer {
  const { rule, port } = call.cloud.data.tables;
  const group = find(call.cloud, "group", param(call));
  if (group.isDefault) {
    throw new ApiError(
      409,
      "Removing default security group not allowed.",
      "SecurityGroupCannotRemoveDefault",
    );
  }
  if (port.by("group", group.id).length === 0) {
    for (const referring of rule.by("peerGroup", group.id)) rule.delete(referring.id);
  }
  deleteGroup(call.cloud, group.id);
  return empty(204);
}

function listGroups(call: Call): Answer {
  const view = viewOf(call);
  defaultGroup(call.cloud);
  return listAnswer<GroupRecord>(call, {
    collection: "security_groups",
    records: recordsWithIds(call, call.cloud.data.tables.group),
    body: (record) => groupBody(view, record),
    attributes: ["id", "name", "description", "tenant_id", "project_id", "stateful", "shared"],
  });
}

const portNumber = z.union([z.number(), z.string().regex(/^-?[0-9]{1,5}$/)]).nullable();
const ruleCreate = z.object({
  security_group_rule: z.strictObject({
    tenant_id: z.string().optional(),
    project_id: z.string().optional(),
    security_group_id: z.string(),
    direction: z.enum(["ingress", "egress"]),
    ethertype: z.enum(["IPv4", "IPv6", "ipv4", "ipv6"]).nullable().optional(),
    protocol: z
      .union([z.string().max(40), z.number()])
      .nullable()
      .optional(),
    port_range_min: portNumber.optional(),
    port_range_max: portNumber.optional(),
    remote_ip_prefix: z.string().max(60).nullable().optional(),
    remote_group_id: z.string().nullable().optional(),
    remote_address_group_id: z.null().optional(),
    description: neutronText.nullable().optional(),
  }),
});
type RuleCreate = z.infer<typeof ruleCreate>["security_group_rule"];

const protocols: ReadonlyMap<string, string> = new Map([
  ["any", "all"],
  ["0", "all"],
  ["1", "icmp"],
  ["6", "tcp"],
  ["17", "udp"],
  ["58", "icmpv6"],
  ["ipv6-icmp", "icmpv6"],
  ...[
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "ah",
    "dccp",
    "egp",
    "esp",
    "gre",
    "igmp",
    "ospf",
    "pgm",
    "rsvp",
    "sctp",
    "udplite",
    "vrrp",
    "ipip",
  ].map((name) => [name, name] as const),
]);

function protocolOf(protocol: RuleCreate["protocol"]): string {
  if (protocol === null || protocol === undefined) return "all";
  const text = String(protocol).toLowerCase();
  const known = protocols.get(text);
  if (known !== undefined) return known;
  if (/^[0-9]{1,3}$/.test(text) && Number(text) <= 255) return text;
  throw badRequest(
    `Security group rule protocol ${quoted(text)} not supported.`,
    "SecurityGroupRuleInvalidProtocol",
  );
}

function peerOf(rule: RuleCreate): RulePeer {
  const family = rule.ethertype?.toLowerCase() === "ipv6" ? 6 : 4;
  const prefix = rule.remote_ip_prefix ?? null;
  if (rule.remote_group_id !== null && rule.remote_group_id !== undefined) {
    if (prefix !== null) {
      throw badRequest(
        "Only remote_ip_prefix or remote_group_id may be provided.",
        "SecurityGroupMultipleRemoteEntites",
      );
    }
    return { kind: "group", groupId: rule.remote_group_id, ...(family === 6 ? { family } : {}) };
  }
  if (prefix === null) return anywhere[family === 6 ? 1 : 0] as RulePeer;
  const slash = prefix.indexOf("/");
  const length = slash < 0 ? "" : prefix.slice(slash + 1);
  const address = slash < 0 ? prefix : prefix.slice(0, slash);
  if (isIPv6(address) && (length === "" || (/^[0-9]{1,3}$/.test(length) && Number(length) <= 128))) {
    if (family === 6) return { kind: "cidr6", cidr: slash < 0 ? `${address}/128` : prefix };
  } else {
    const parsed = parsePrefix(slash < 0 ? `${prefix}/32` : prefix);
    if (parsed === undefined) {
      throw badRequest(`Invalid CIDR ${quoted(prefix)} given as IP prefix.`, "InvalidCIDR");
    }
    if (family === 4) return { kind: "cidr4", cidr: formatPrefix(parsed) };
  }
  throw badRequest(
    `Conflicting value ethertype ${quoted(rule.ethertype ?? "IPv4")} for CIDR ${quoted(prefix)}`,
    "SecurityGroupRuleParameterConflict",
  );
}

function rangeOf(rule: RuleCreate, protocol: string): { from: number | null; to: number | null } {
  const number = (value: RuleCreate["port_range_min"]): number | null =>
    value === null || value === undefined ? null : Number(value);
  const [from, to] = [number(rule.port_range_min), number(rule.port_range_max)];
  if (from === null && to === null) return { from, to };
  if (protocol === "icmp" || protocol === "icmpv6") {
    const wrong = from === null || [from, to].some((value) => value !== null && (value < 0 || value > 255));
    if (!wrong) return { from, to };
    throw badRequest(`Invalid value for ICMP type or code.`, "SecurityGroupInvalidIcmpValue");
  }
  if (protocol === "all") {
    throw badRequest(
      "Must also specify protocol if port range is given.",
      "SecurityGroupProtocolRequiredWithPorts",
    );
  }
  if (from === null || to === null || from < 1 || to > 65_535 || from > to) {
    throw badRequest(
      "For TCP/UDP protocols, port_range_min must be <= port_range_max",
      "SecurityGroupInvalidPortRange",
    );
  }
  return { from, to };
}

function postRule(call: Call): Answer {
  const { security_group_rule: asked } = bodyOf(call, ruleCreate);
  find(call.cloud, "group", asked.security_group_id);
  const protocol = protocolOf(asked.protocol);
  const { from, to } = rangeOf(asked, protocol);
  const peer = peerOf(asked);
  const rule: RuleInput = {
    groupId: asked.security_group_id,
    direction: asked.direction,
    protocol,
    fromPort: from,
    toPort: to,
    peer,
    description: asked.description ?? null,
    extra: { anyPrefix: peer.kind !== "group" && (asked.remote_ip_prefix ?? null) === null },
  };
  const same = findRuleByContent(call.cloud, rule);
  if (same !== undefined) {
    throw new ApiError(
      409,
      `Security group rule already exists. Rule id is ${same.id}.`,
      "SecurityGroupRuleExists",
    );
  }
  return json(201, { security_group_rule: ruleBody(viewOf(call), createRule(call.cloud, rule)) });
}

function removeRule(call: Call): Answer {
  deleteRule(call.cloud, param(call));
  return empty(204);
}

function listRules(call: Call): Answer {
  const view = viewOf(call);
  return listAnswer<RuleRecord>(call, {
    collection: "security_group_rules",
    records: recordsWithIds(call, call.cloud.data.tables.rule, [["security_group_id", "group"]]),
    body: (record) => ruleBody(view, record),
    attributes: [
      "id",
      "description",
      "tenant_id",
      "project_id",
      "security_group_id",
      "direction",
      "ethertype",
      "protocol",
      "port_range_min",
      "port_range_max",
      "remote_ip_prefix",
      "remote_group_id",
    ],
  });
}

const service = "network" as const;
export const groupRoutes: readonly Route[] = [
  { service, method: "GET", path: "/security-groups", handler: listGroups },
  { service, method: "POST", path: "/security-groups", handler: postGroup },
  {
    service,
    method: "GET",
    path: "/security-groups/{id}",
    handler: (call) =>
      json(200, { security_group: groupBody(viewOf(call), find(call.cloud, "group", param(call))) }),
  },
  { service, method: "PUT", path: "/security-groups/{id}", handler: putGroup },
  { service, method: "DELETE", path: "/security-groups/{id}", handler: removeGroup },
  { service, method: "GET", path: "/security-group-rules", handler: listRules },
  { service, method: "POST", path: "/security-group-rules", handler: postRule },
  {
    service,
    method: "GET",
    path: "/security-group-rules/{id}",
    handler: (call) =>
      json(200, { security_group_rule: ruleBody(viewOf(call), find(call.cloud, "rule", param(call))) }),
  },
  { service, method: "DELETE", path: "/security-group-rules/{id}", handler: removeRule },
];
