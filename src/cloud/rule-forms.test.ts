import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResourceId } from "#kernel/ids.ts";
import type { SecurityGroupRuleSpec } from "#model/resource.ts";
import { type RuleForms, whyNotEnforced } from "./rule-forms.ts";

const forms: RuleForms = { protocols: ["tcp", "udp"], mostPorts: 32, egress: true };
const http: SecurityGroupRuleSpec = {
  groupId: "g" as ResourceId,
  direction: "ingress",
  protocol: "tcp",
  fromPort: 80,
  toPort: 80,
  peer: { cidr: "0.0.0.0/0" },
};
const out: SecurityGroupRuleSpec = {
  groupId: "g" as ResourceId,
  direction: "egress",
  protocol: "all",
  peer: { cidr: "0.0.0.0/0" },
};

void test("a cloud that says nothing enforces every form", () => {
  assert.equal(whyNotEnforced(undefined, { ...http, peer: { groupId: "h" as ResourceId } }), null);
});

void test("few ports from everywhere, and everything out", () => {
  assert.equal(whyNotEnforced(forms, http), null);
  assert.equal(whyNotEnforced(forms, { ...http, protocol: "udp", fromPort: 1, toPort: 32 }), null);
  assert.equal(whyNotEnforced(forms, out), null);
});

void test("what would let in more than the rule says is not enforced", () => {
  const { fromPort: _from, toPort: _to, ...everyPort } = http;
  for (const [spec, why] of [
    [{ ...http, peer: { cidr: "10.0.0.0/8" } }, /0\.0\.0\.0\/0 or to nobody/],
    [{ ...http, peer: { cidr: "::/0" } }, /nobody/],
    [{ ...http, peer: { groupId: "h" as ResourceId } }, /nobody/],
    [{ ...http, protocol: "icmp" }, /tcp and udp/],
    [{ ...http, fromPort: 1, toPort: 33 }, /32 ports/],
    [everyPort, /32 ports/],
    [{ ...out, protocol: "tcp" }, /narrowed/],
    [{ ...out, peer: { cidr: "10.0.0.0/8" } }, /narrowed/],
  ] as const) {
    assert.match(whyNotEnforced(forms, spec) ?? "", why);
  }
  assert.match(whyNotEnforced({ ...forms, egress: false }, out) ?? "", /nothing/);
});
