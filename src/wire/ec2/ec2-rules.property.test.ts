import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { ResourceId } from "#kernel/ids.ts";
import type { SecurityGroupRuleSpec } from "#model/resource.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import { permissionToEc2, rulesFromPermissions } from "./ec2-rules.ts";

const peer = fc.oneof(
  fc.constantFrom("0.0.0.0/0", "10.1.0.0/16", "::/0", "fd00::/8").map((cidr) => ({ cidr })),
  fc.constantFrom("sg-1", "sg-2").map((id) => ({ groupId: id as ResourceId })),
);
const ports = fc
  .tuple(fc.nat(65_535), fc.nat(65_535))
  .map(([a, b]) => ({ fromPort: Math.min(a, b), toPort: Math.max(a, b) }))
  // The whole range has a form of its own.
  .filter(({ fromPort, toPort }) => fromPort > 0 || toPort < 65_535);
const icmp = fc.record({ fromPort: fc.nat(255), toPort: fc.integer({ min: -1, max: 255 }) });
const content = fc.oneof(
  fc.tuple(fc.constantFrom("tcp", "udp"), fc.oneof(ports, fc.constant({}))),
  fc.tuple(fc.constantFrom("icmp", "icmpv6"), fc.oneof(icmp, fc.constant({}))),
  fc.tuple(fc.constantFrom("all", "47", "50"), fc.constant({})),
);
const rule = fc
  .tuple(fc.constantFrom<"ingress" | "egress">("ingress", "egress"), content, peer)
  .map(([direction, [protocol, range], peer]): SecurityGroupRuleSpec => ({
    groupId: "sg-9" as ResourceId,
    direction,
    protocol,
    ...range,
    peer,
  }));

void test("a rule said to EC2 and heard back is the same rule with the same id", () => {
  fc.assert(
    fc.property(rule, (spec) => {
      const back = rulesFromPermissions(spec.groupId, spec.direction, [permissionToEc2(spec)]);
      assert.deepEqual(back, { rules: [spec], untranslated: [] });
      assert.equal(securityGroupRuleId(back.rules[0] ?? spec), securityGroupRuleId(spec));
    }),
  );
});
