import assert from "node:assert/strict";
import { test } from "node:test";
import type { Change } from "#model/change.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { OpenstackService } from "./keystone.ts";
import { openstackChanges } from "./openstack-changes.ts";
import type { OpenstackEffect, OpenstackLookup } from "./openstack-effect.ts";
import { exchangeFixtures } from "./recorded.fixture.ts";

const recorded = exchangeFixtures();

function exchange(name: string): NonNullable<ReturnType<typeof recorded.get>> {
  const found = recorded.get(name);
  assert.ok(found, name);
  return found;
}

const versions: Readonly<Record<OpenstackService, string>> = {
  identity: "",
  compute: "/v2.1",
  network: "",
  image: "",
  volume: "/v3",
};

/** Answers from recorded bodies, by the start of the path. */
function lookupOf(answers: Readonly<Record<string, string>>): OpenstackLookup {
  return {
    get: async (_service, path) => {
      const found = Object.entries(answers).find(([start]) => path.startsWith(start));
      return found === undefined ? undefined : exchange(found[1]).response;
    },
  };
}

async function effectOf(name: string, lookup: OpenstackLookup = lookupOf({})): Promise<OpenstackEffect> {
  const { service, method, path, status, request, response } = exchange(name);
  return openstackChanges(
    { method, path: `${versions[service]}${path}`, requestBody: request, responseBody: response, status },
    lookup,
  );
}

async function onlyChange(name: string, lookup?: OpenstackLookup): Promise<Change> {
  const { changes, gaps } = await effectOf(name, lookup);
  assert.deepEqual(gaps, [], name);
  assert.equal(changes.length, 1, name);
  return changes[0] as Change;
}

void test("a server: asked for by names, recorded by ids", async () => {
  const lookup = lookupOf({
    "/subnets?": "subnets of network",
    "/security-groups?name=web": "security groups by name",
    "/flavors/": "flavor",
  });
  const subnet = (exchange("subnet create").response as { subnet: { id: string } }).subnet;
  const group = (exchange("security group create").response as { security_group: { id: string } })
    .security_group;
  const answers: OpenstackLookup = {
    get: async (service, path) => {
      if (path.startsWith("/subnets?")) return { subnets: [subnet] };
      if (path.startsWith("/security-groups?")) return { security_groups: [group] };
      return lookup.get(service, path);
    },
  };
  const change = await onlyChange("server create", answers);
  assert.ok(change.type === "create" && change.kind === "server");
  assert.equal(change.spec.type, "m1.small");
  assert.equal(change.spec.subnetId, subnet.id);
  assert.deepEqual(change.spec.groupIds, [group.id]);
  assert.equal(change.spec.keyName, "deploy");
  assert.equal(change.spec.userData, "aGVsbG8=");
  assert.deepEqual(change.tags, { Name: "web-1", tier: "web" });
});

void test("power, type and tags of a server", async () => {
  assert.deepEqual(await onlyChange("server stop"), {
    type: "update",
    kind: "server",
    id: exchange("server stop").path.split("/")[2],
    set: { power: "stopped" },
  });
  assert.deepEqual(await effectOf("server resize"), { changes: [], gaps: [] });
  assert.deepEqual(await effectOf("server reboot"), { changes: [], gaps: [] });
  const confirmed = await onlyChange(
    "server confirm resize",
    lookupOf({ "/servers/": "server verify resize" }),
  );
  assert.ok(confirmed.type === "update" && confirmed.kind === "server");
  assert.notEqual(confirmed.set.type, "m1.small");
  const tag = await onlyChange("server metadata add");
  assert.ok(tag.type === "tag");
  assert.deepEqual([tag.set, tag.remove], [{ owner: "me" }, []]);
  const removed = await onlyChange("server metadata delete");
  assert.ok(removed.type === "tag");
  assert.deepEqual(removed.remove, ["tier"]);
  const renamed = await onlyChange("server rename");
  assert.ok(renamed.type === "tag");
  assert.deepEqual(renamed.set, { Name: "web-2" });
});

void test("all metadata replaced: what went is known from before, or is a gap", async () => {
  const { changes, gaps } = await effectOf("server metadata replace");
  assert.equal(changes.length, 1);
  assert.equal(gaps[0]?.code, "field.untranslated");
  const known = EnvironmentState.of([
    {
      kind: "server",
      id: "x" as never,
      spec: {} as never,
      tags: { Name: "web-1", tier: "web", owner: "me" },
    },
  ]);
  const lookup: OpenstackLookup = { get: async () => undefined, known: () => known.get("server", "x") };
  const change = await onlyChange("server metadata replace", lookup);
  assert.ok(change.type === "tag");
  assert.deepEqual([change.set, change.remove], [{ owner: "you" }, ["tier"]]);
});

void test("a router's interfaces and gateway say which networks reach the internet", async () => {
  const network = (exchange("network create").response as { network: { id: string } }).network.id;
  const lookup = lookupOf({ "/ports?": "ports of network", "/routers/": "router get" });
  const internet = (value: boolean): object => ({
    type: "update",
    kind: "network",
    id: network,
    set: { internet: value },
  });
  assert.deepEqual(await onlyChange("router interface add", lookup), internet(true));
  assert.deepEqual(await onlyChange("router gateway set", lookup), internet(true));
  const closed = lookupOf({ "/ports?": "ports of network", "/routers/": "router gateway clear" });
  assert.deepEqual(await onlyChange("router gateway clear", closed), internet(false));
  assert.deepEqual(await onlyChange("router interface remove", lookupOf({})), internet(false));
  assert.deepEqual(await effectOf("router create"), { changes: [], gaps: [] });
});

void test("a security group comes with its rules, and a rule goes by Neutron's id", async () => {
  const { changes } = await effectOf("security group create");
  assert.deepEqual(
    changes.map((change) => change.kind),
    ["securityGroup", "securityGroupRule", "securityGroupRule"],
  );
  const state = new EnvironmentState();
  for (const change of [...changes, ...(await effectOf("rule create")).changes]) state.apply(change);
  assert.equal(state.size, 4);
  const removal = await onlyChange("rule delete");
  assert.equal(state.apply(removal), "applied");
  assert.equal(state.size, 3);
});

void test("volumes, attachments, addresses and key pairs", async () => {
  const state = new EnvironmentState();
  for (const name of [
    "volume create",
    "volume extend",
    "volume metadata",
    "attach",
    "floating ip create",
    "floating ip associate",
    "key pair import",
  ]) {
    for (const change of (await effectOf(name)).changes) assert.equal(state.apply(change), "applied", name);
  }
  const kinds = [...state.resources()].map(({ kind }) => kind).sort();
  assert.deepEqual(kinds, ["address", "addressAssociation", "keyPair", "volume", "volumeAttachment"]);
  const volume = [...state.resources()].find(({ kind }) => kind === "volume");
  assert.ok(volume?.kind === "volume");
  assert.equal(volume.spec.sizeGiB, 2);
  assert.deepEqual(volume.tags, { Name: "data", tier: "db", owner: "me" });
  for (const name of [
    "floating ip disassociate",
    "detach",
    "volume delete",
    "floating ip delete",
    "key pair delete",
  ]) {
    for (const change of (await effectOf(name)).changes) assert.equal(state.apply(change), "applied", name);
  }
  assert.equal(state.size, 0);
});

void test("networks, also in bulk, with their tags", async () => {
  const bulk = await effectOf("network bulk create");
  assert.deepEqual(
    bulk.changes.map(({ kind }) => kind),
    ["network", "network"],
  );
  const added = await onlyChange("network tag add");
  assert.ok(added.type === "tag");
  assert.deepEqual(added.set, { owner: "me" });
  const removed = await onlyChange("network tag remove");
  assert.ok(removed.type === "tag");
  assert.deepEqual(removed.remove, ["bare"]);
});

void test("what has no place in the model is a named gap; a refusal is nothing", async () => {
  const { changes, gaps } = await effectOf("server rebuild");
  assert.deepEqual(changes, []);
  assert.equal(gaps[0]?.code, "operation.untranslated");
  assert.equal(gaps[0]?.operation, "openstack:POST /servers/{id}/action rebuild");
  const pool = { method: "POST", path: "/v2.0/lbaas/pools", requestBody: {}, responseBody: {}, status: 201 };
  assert.equal((await openstackChanges(pool, lookupOf({}))).gaps[0]?.severity, "lost");
  assert.deepEqual(await openstackChanges({ ...pool, status: 409 }, lookupOf({})), { changes: [], gaps: [] });
  const broken = { ...pool, path: "/v2.0/networks", responseBody: "nonsense" };
  assert.equal((await openstackChanges(broken, lookupOf({}))).gaps.length, 1);
});
