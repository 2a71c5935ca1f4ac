import assert from "node:assert/strict";
import { test } from "node:test";
import { resourceId } from "#kernel/ids.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { neededBy } from "#model/needed-resources.ts";
import type { Resource, ServerSpec } from "#model/resource.ts";

const id = resourceId;
const server = (name: string, subnet: string, group: string, keyName?: string): Resource => {
  const spec: ServerSpec = {
    imageId: "img",
    type: "small",
    subnetId: id(subnet),
    groupIds: [id(group)],
    publicAddress: false,
    power: "running",
    blockDevices: [],
    ...(keyName !== undefined && { keyName }),
  };
  return { kind: "server", id: id(name), spec, tags: {} };
};
const rule = (name: string, groupId: string, peer: string): Resource => ({
  kind: "securityGroupRule",
  id: id(name),
  spec: { groupId: id(groupId), direction: "ingress", protocol: "tcp", peer: { groupId: id(peer) } },
  tags: {},
});
const attached = (volumeId: string, serverId: string): Resource => ({
  kind: "volumeAttachment",
  id: id(`${volumeId}@${serverId}`),
  spec: { volumeId: id(volumeId), serverId: id(serverId), device: "/dev/sdf", deleteOnTermination: false },
  tags: {},
});

function environment(): EnvironmentState {
  const state = new EnvironmentState();
  const all: readonly Resource[] = [
    { kind: "network", id: id("net"), spec: { internet: true }, tags: {} },
    { kind: "network", id: id("other-net"), spec: { internet: true }, tags: {} },
    {
      kind: "subnet",
      id: id("sub"),
      spec: { networkId: id("net"), cidr: "10.0.0.0/24", publicAddresses: true },
      tags: {},
    },
    ...["db", "web", "admin", "lonely"].map((name): Resource => ({
      kind: "securityGroup",
      id: id(`sg-${name}`),
      spec: { name, description: name, networkId: id("net") },
      tags: {},
    })),
    // The database lets the web tier in, and that one lets itself be administered.
    rule("r-db", "sg-db", "sg-web"),
    rule("r-web", "sg-web", "sg-admin"),
    rule("r-lonely", "sg-lonely", "sg-db"),
    { kind: "keyPair", id: id("ops"), spec: { name: "ops" }, tags: {} },
    ...["records", "pictures"].map((name): Resource => ({
      kind: "volume",
      id: id(name),
      spec: { sizeGiB: 1 },
      tags: {},
    })),
    { kind: "address", id: id("ip"), spec: {}, tags: {} },
    server("db-1", "sub", "sg-db", "ops"),
    server("web-1", "sub", "sg-web"),
    attached("records", "db-1"),
    attached("pictures", "web-1"),
    {
      kind: "addressAssociation",
      id: id("ip@web-1"),
      spec: { addressId: id("ip"), serverId: id("web-1") },
      tags: {},
    },
  ];
  for (const one of all) state.put(one);
  return state;
}

const needed = (...servers: readonly string[]): readonly string[] =>
  neededBy(environment(), new Set(servers.map(id))).map((one) => one.id);

test("a server comes with what it refers to, what its groups let in from, and what is its own; with no other server", () => {
  assert.deepEqual(needed("db-1"), [
    "net",
    "sub",
    "sg-db",
    "sg-web",
    "sg-admin",
    "r-db",
    "r-web",
    "ops",
    "records",
    "db-1",
    "records@db-1",
  ]);
});

test("an address comes with its server; what nobody named is not taken", () => {
  const web = needed("web-1");
  assert.ok(web.includes("ip") && web.includes("ip@web-1") && web.includes("pictures"));
  for (const other of ["db-1", "records", "sg-db", "sg-lonely", "other-net", "ops"])
    assert.ok(!web.includes(other), other);
  assert.deepEqual(needed("nobody"), []);
});

test("every server: every server and no reference that leads nowhere", () => {
  const all = needed("db-1", "web-1");
  assert.ok(all.includes("db-1") && all.includes("web-1"));
  assert.ok(!all.includes("sg-lonely"), "nobody is in it");
});
