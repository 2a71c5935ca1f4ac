import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResourceId } from "#kernel/ids.ts";
import type { SecurityGroupRuleSpec } from "#model/resource.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import { volumeResponseSchema } from "./cinder.ts";
import { findEndpoint, tokenResponseSchema } from "./keystone.ts";
import { portsResponseSchema, securityGroupRuleResponseSchema } from "./neutron.ts";
import { negotiateNovaVersion, serverResponseSchema } from "./nova.ts";
import { serverFromBody, volumeFromBody } from "./openstack-resources.ts";
import type { MappedResource } from "./openstack-resources.ts";
import { normalRuleId, ruleSpecFromBody, ruleToBody } from "./openstack-rules.ts";
import { exchangeFixtures } from "./recorded.fixture.ts";

const recorded = exchangeFixtures();
const responseOf = (name: string): unknown => recorded.get(name)?.response;

function server(name: string): MappedResource<"server"> {
  const { ports } = portsResponseSchema.parse(responseOf("ports of server"));
  return serverFromBody(serverResponseSchema.parse(responseOf(name)).server, {
    ports,
    publicIps: ["203.0.113.9"],
  });
}

void test("a server with its ports", () => {
  const { resource, status, addresses, fault } = server("server active");
  const { ports } = portsResponseSchema.parse(responseOf("ports of server"));
  assert.equal(status, "ready");
  assert.equal(fault, undefined);
  assert.equal(resource.spec.type, "m1.small");
  assert.equal(resource.spec.subnetId, ports[0]?.fixed_ips[0]?.subnet_id);
  assert.deepEqual(resource.spec.groupIds, ports[0]?.security_groups);
  assert.equal(resource.spec.zone, "nova");
  assert.deepEqual(resource.tags, { Name: "web-1", tier: "web" });
  assert.deepEqual(addresses, { private: [ports[0]?.fixed_ips[0]?.ip_address], public: ["203.0.113.9"] });
});

void test("how servers stand, and why one failed", () => {
  assert.equal(server("server building").status, "pending");
  assert.equal(server("server verify resize").status, "pending");
  const stopped = server("server stopped");
  assert.deepEqual([stopped.status, stopped.resource.spec.power], ["stopped", "stopped"]);
  const failed = server("server error");
  assert.equal(failed.status, "failed");
  assert.match(failed.fault ?? "", /^No valid host was found/);
  const dark = serverFromBody(serverResponseSchema.parse({ server: { id: "x", status: "UNKNOWN" } }).server, {
    ports: [],
  });
  assert.equal(dark.status, "failed");
  assert.ok(dark.fault);
});

void test("a volume", () => {
  const { resource, status } = volumeFromBody(volumeResponseSchema.parse(responseOf("volume get")).volume);
  assert.equal(status, "ready");
  assert.equal(resource.spec.sizeGiB, 1);
  assert.deepEqual(resource.tags, { Name: "data", tier: "db" });
});

void test("rules: to Neutron and back, and the forms that are one to it", () => {
  const groupId = "g1" as ResourceId;
  const base = { groupId, direction: "ingress" } as const;
  const specs: SecurityGroupRuleSpec[] = [
    { ...base, protocol: "tcp", fromPort: 80, toPort: 80, peer: { cidr: "0.0.0.0/0" } },
    { ...base, protocol: "udp", fromPort: 1, toPort: 65_535, peer: { cidr: "2001:db8::/32" } },
    { ...base, protocol: "icmp", fromPort: 8, peer: { cidr: "10.0.0.0/8" } },
    { ...base, protocol: "icmpv6", peer: { cidr: "::/0" } },
    { ...base, direction: "egress", protocol: "all", peer: { cidr: "0.0.0.0/0" } },
    { ...base, protocol: "50", peer: { groupId: "g2" as ResourceId }, description: "esp" },
  ];
  for (const spec of specs) {
    const { security_group_rule: body } = ruleToBody(spec);
    const { security_group_rule: read } = securityGroupRuleResponseSchema.parse({
      security_group_rule: { id: "r1", ...body },
    });
    const back = ruleSpecFromBody(read);
    assert.ok(back);
    assert.equal(normalRuleId(securityGroupRuleId(back)), normalRuleId(securityGroupRuleId(spec)));
    assert.equal(back.description, spec.description);
  }
  assert.equal(normalRuleId("g1/ingress/tcp/0-65535/::/0"), "g1/ingress/tcp/*-*/::/0");
  assert.equal(normalRuleId("g1/ingress/icmp/-1--1/10.0.0.0/8"), "g1/ingress/icmp/*-*/10.0.0.0/8");
  assert.equal(normalRuleId("g1/ingress/icmp/8--1/10.0.0.0/8"), "g1/ingress/icmp/8-*/10.0.0.0/8");
  assert.equal(normalRuleId("no rule"), "no rule");
});

void test("the catalogue's addresses, by type, region and interface", () => {
  const { token } = tokenResponseSchema.parse(responseOf("token"));
  const find = (service: "compute" | "volume", region?: string): string | undefined =>
    findEndpoint(token.catalog, service, {
      interface: "public",
      ...(region === undefined ? {} : { region }),
    });
  assert.match(find("compute") ?? "", /\/v2\.1$/);
  assert.match(find("volume", "RegionOne") ?? "", /\/v3\//);
  assert.equal(find("compute", "Elsewhere"), undefined);
});

void test("Nova's microversion: the newest that is understood, or none", () => {
  assert.equal(negotiateNovaVersion("2.93"), "2.79");
  assert.equal(negotiateNovaVersion("2.60"), "2.60");
  assert.equal(negotiateNovaVersion("2.51"), undefined);
  assert.equal(negotiateNovaVersion(""), undefined);
  assert.equal(negotiateNovaVersion("nonsense"), undefined);
});
