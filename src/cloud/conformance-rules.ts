/** Cases about security group rules: single resources whose id is their content. */
import assert from "node:assert/strict";
import type { ResourceId } from "#kernel/ids.ts";
import { whyNotEnforced } from "#cloud/rule-forms.ts";
import type { SecurityGroupRuleSpec } from "#model/resource.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import type { ConformanceCase, ConformanceContext } from "./conformance-case.ts";
import type { ConformanceBench } from "./conformance-bench.ts";

async function twoGroups(bench: ConformanceBench): Promise<[ResourceId, ResourceId]> {
  const networkId = (await bench.make("network", { cidr: "10.94.0.0/16", internet: false })).resource.id;
  const make = async (): Promise<ResourceId> => {
    const spec = { networkId, name: bench.name(), description: "made by understudy cloud verify" };
    return (await bench.make("securityGroup", spec)).resource.id;
  };
  return [await make(), await make()];
}

async function rulesOf(bench: ConformanceBench, groupId: ResourceId): Promise<ResourceId[]> {
  const all = await bench.list("securityGroupRule", {});
  return all.filter(({ resource }) => resource.spec.groupId === groupId).map(({ resource }) => resource.id);
}

async function rulesComeAndGo({ bench, cloud }: ConformanceContext): Promise<void> {
  const [groupId, peerId] = await twoGroups(bench);
  assert.deepEqual(await rulesOf(bench, groupId), [], "a new group has no rules but those asked for");
  const base = { groupId, direction: "ingress" } as const;
  const forms: SecurityGroupRuleSpec[] = [
    { ...base, protocol: "tcp", fromPort: 80, toPort: 80, peer: { cidr: "0.0.0.0/0" } },
    { ...base, protocol: "udp", fromPort: 5000, toPort: 5003, peer: { cidr: "0.0.0.0/0" } },
    { ...base, protocol: "tcp", fromPort: 8000, toPort: 8100, peer: { cidr: "10.0.0.0/8" } },
    { ...base, protocol: "udp", fromPort: 53, toPort: 53, peer: { groupId: peerId } },
    { ...base, protocol: "icmp", peer: { cidr: "10.0.0.0/8" } },
    { ...base, protocol: "tcp", fromPort: 443, toPort: 443, peer: { cidr: "::/0" } },
    { groupId, direction: "egress", protocol: "all", peer: { cidr: "0.0.0.0/0" } },
  ];
  const isEnforced = (spec: SecurityGroupRuleSpec): boolean =>
    whyNotEnforced(cloud.facts.enforcedRules, spec) === null;
  const specs = forms.filter(isEnforced);
  assert.ok(specs.length > 0, "some form of rule is enforced");
  for (const spec of forms) {
    if (isEnforced(spec)) continue;
    // Never taken as if it held.
    await bench.expectRefusal(["cloud.unsupported"], () => bench.make("securityGroupRule", spec, {}));
  }
  for (const spec of specs) {
    const made = await bench.make("securityGroupRule", spec, {});
    assert.equal(made.resource.id, securityGroupRuleId(spec), "its id is its content");
    const again = await bench.make("securityGroupRule", spec, {});
    assert.equal(again.resource.id, made.resource.id, "the same rule again is the same rule");
    assert.ok(await bench.get("securityGroupRule", made.resource.id), `get sees ${made.resource.id}`);
  }
  const wanted = specs.map(securityGroupRuleId);
  assert.deepEqual((await rulesOf(bench, groupId)).sort(), wanted.toSorted());
  const half = Math.ceil(wanted.length / 2);
  for (const ruleId of wanted.slice(0, half)) {
    await bench.delete("securityGroupRule", ruleId);
    await bench.delete("securityGroupRule", ruleId);
    assert.equal(await bench.get("securityGroupRule", ruleId), undefined);
  }
  assert.deepEqual((await rulesOf(bench, groupId)).sort(), wanted.slice(half).sort());
}

async function groupsGoWithTheirRules({ bench, cloud }: ConformanceContext): Promise<void> {
  const [groupId, peerId] = await twoGroups(bench);
  const rule = (from: ResourceId, to: ResourceId): SecurityGroupRuleSpec => ({
    groupId: from,
    direction: "ingress",
    protocol: "tcp",
    fromPort: 22,
    toPort: 22,
    peer: { groupId: to },
  });
  const named = whyNotEnforced(cloud.facts.enforcedRules, rule(peerId, groupId)) === null;
  const open = { ...rule(groupId, peerId), peer: { cidr: "0.0.0.0/0" } };
  await bench.make("securityGroupRule", named ? rule(groupId, peerId) : open, {});
  if (named) await bench.make("securityGroupRule", rule(peerId, groupId), {});
  await bench.delete("securityGroup", groupId);
  assert.equal(await bench.get("securityGroup", groupId), undefined);
  assert.deepEqual(await rulesOf(bench, groupId), [], "its rules are gone");
  assert.deepEqual(await rulesOf(bench, peerId), [], "a rule for a group that is gone is gone");
}

export const ruleCases: readonly ConformanceCase[] = [
  {
    name: "securityGroupRule: each form comes and goes",
    needs: ["network", "securityGroup", "securityGroupRule"],
    run: rulesComeAndGo,
  },
  {
    name: "securityGroup: goes with its rules, and with rules that name it",
    needs: ["network", "securityGroup", "securityGroupRule"],
    run: groupsGoWithTheirRules,
  },
];
