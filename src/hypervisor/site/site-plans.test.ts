// What a bare host makes of what is on record: capacity, changes, guests, wishes.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Resource, SecurityGroupRuleSpec } from "#model/resource.ts";
import { checkCapacity, checkDisksOf, useOf } from "./site-capacity.ts";
import { planChange } from "./site-change.ts";
import { guestOf, wishesOf } from "./site-guest.ts";
import type { SiteStore } from "./site-store.ts";
import { id, openStore, recordOf, server, settings, volume } from "./site.fixture.ts";

async function storeOf(t: TestContext, resources: readonly Resource[] = []): Promise<SiteStore> {
  const folder = mkdtempSync(join(tmpdir(), "site-plans-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const store = await openStore(join(folder, "site.json"));
  await store.transact((draft) => {
    for (const resource of resources) draft.insert(recordOf(resource));
  });
  return store;
}

const rule = (part: Partial<SecurityGroupRuleSpec>): Resource => {
  const spec: SecurityGroupRuleSpec = {
    groupId: id("grp-1"),
    direction: "ingress",
    protocol: "tcp",
    fromPort: 80,
    toPort: 80,
    peer: { cidr: "0.0.0.0/0" },
    ...part,
  };
  return { kind: "securityGroupRule", id: id(JSON.stringify(part)), spec, tags: {} };
};
const group: Resource = {
  kind: "securityGroup",
  id: id("grp-1"),
  spec: { name: "web", description: "" },
  tags: {},
};

void test("each limit refuses the one too many, and what makes it less passes", async (t) => {
  const store = await storeOf(t, [server("srv-1"), server("srv-2", { power: "stopped" })]);
  const refused = (resource: Resource, what: RegExp): Promise<void> =>
    assert.rejects(
      store.transact((draft) => {
        const before = useOf(draft, settings);
        draft.insert(recordOf(resource));
        checkCapacity(before, draft, settings);
      }),
      { code: "cloud.quota", outcome: "not_applied", message: what },
    );
  await refused(volume("vol-1", 11), /11 more GiB of disks are asked for, and of 10 there are 10/u);
  const tight = { ...settings, limits: { ...settings.limits, memoryMiB: 168 } };
  await assert.rejects(
    store.transact((draft) => {
      const before = useOf(draft, tight);
      draft.insert(recordOf(server("srv-3")));
      checkCapacity(before, draft, tight);
    }),
    /168 more MiB of memory are asked for, and of 168 there are 0 left/u,
  );
  // Over its limit already, since that was lowered: smaller is allowed all the same.
  const lowered = { ...settings, limits: { ...settings.limits, servers: 0 } };
  await store.transact((draft) => {
    const before = useOf(draft, lowered);
    draft.insert(recordOf(volume("vol-2", 1)));
    checkCapacity(before, draft, lowered);
  });
});

void test("a machine has a number of disks at most", async (t) => {
  const store = await storeOf(t, [server("srv-1")]);
  await store.transact((draft) => {
    for (let count = 0; count < 13; count += 1) {
      draft.insert(recordOf(volume(`vol-${count}`, 1)));
      const spec = {
        volumeId: id(`vol-${count}`),
        serverId: id("srv-1"),
        device: `/dev/${count}`,
        deleteOnTermination: false,
      };
      draft.insert(recordOf({ kind: "volumeAttachment", id: id(`vol-${count}@srv-1`), spec, tags: {} }));
      if (count < 12) checkDisksOf(draft, "srv-1");
      else assert.throws(() => checkDisksOf(draft, "srv-1"), { code: "cloud.quota" });
    }
  });
});

void test("a change boots a guest only where the guest must be told of it", () => {
  const boots = (part: object, held = server("srv-1"), failed = false): boolean =>
    planChange(held, part, failed).boots;
  assert.equal(boots({ type: "large" }), true);
  assert.equal(boots({ userData: "eA==" }), true);
  assert.equal(boots({ type: "small" }), false);
  assert.equal(boots({ groupIds: [id("grp-1")] }), false);
  assert.equal(boots({ power: "stopped" }), false);
  assert.equal(boots({ type: "large" }, server("srv-1", { power: "stopped" })), false);
  assert.equal(boots({ power: "running" }, server("srv-1", { power: "stopped" })), true);
  assert.equal(boots({ power: "running" }), false);
  assert.equal(boots({ power: "running" }, server("srv-1"), true), true, "one that failed is tried again");
});

void test("what cannot be changed is refused, the same value is no change, and disks only grow", () => {
  assert.throws(() => planChange(server("srv-1"), { imageId: "disk" }, false), { code: "cloud.unsupported" });
  assert.equal(planChange(server("srv-1"), { imageId: "kernel" }, false).boots, false);
  assert.throws(() => planChange(volume("vol-1", 2), { sizeGiB: 1 }, false), { code: "cloud.refused" });
  const { next } = planChange(volume("vol-1", 2), { sizeGiB: 3 }, false);
  assert.deepEqual(next.spec, { sizeGiB: 3 });
});

void test("a guest is let out where the host allows it and a group does, and is given its key", async (t) => {
  const key: Resource = {
    kind: "keyPair",
    id: id("shop"),
    spec: { name: "shop", publicKey: "ssh-ed25519 A" },
    tags: {},
  };
  const out = rule({ direction: "egress", protocol: "all" });
  const web = server("srv-1", { groupIds: [id("grp-1")], keyName: "shop" });
  const closed = await storeOf(t, [group, rule({}), key, web]);
  const guest = (store: SiteStore, with_ = settings) => {
    const record = store.book.get("server", "srv-1");
    assert.ok(record?.resource.kind === "server");
    return guestOf(record, record.resource, store.book, with_);
  };
  assert.equal(guest(closed).outbound, false);
  assert.deepEqual(guest(closed).publicKeys, ["ssh-ed25519 A"]);
  assert.equal(guest(closed).mac, "02:00:c0:00:02:01");
  const open = await storeOf(t, [group, rule({}), out, key, web]);
  assert.equal(guest(open).outbound, true);
  assert.equal(guest(open, { ...settings, outbound: false }).outbound, false);
  assert.throws(() => guest(open, { ...settings, types: {} }), {
    code: "machine.refused",
    message: /no type small/u,
  });
});

void test("the keeper of guests is asked for a server's disks, addresses and open ports", async (t) => {
  const web = server("srv-1", { groupIds: [id("grp-1")], imageId: "disk" });
  const store = await storeOf(t, [group, rule({}), volume("vol-1", 2)]);
  const own = [{ id: "vol-r", sizeGiB: 0, device: "root", deleteOnTermination: true }];
  await store.transact((draft) => {
    draft.insert(recordOf(web, { ownDisks: own }));
    const spec = {
      volumeId: id("vol-1"),
      serverId: id("srv-1"),
      device: "/dev/sdf",
      deleteOnTermination: false,
    };
    draft.insert(recordOf({ kind: "volumeAttachment", id: id("vol-1@srv-1"), spec, tags: {} }));
    draft.insert(recordOf({ kind: "address", id: id("adr-1"), spec: {}, tags: {} }));
    const link = { addressId: id("adr-1"), serverId: id("srv-1") };
    draft.insert(recordOf({ kind: "addressAssociation", id: id("adr-1/association"), spec: link, tags: {} }));
  });
  const wishes = wishesOf({ store, settings, ended: () => {} });
  assert.deepEqual(
    wishes.volumesOf("srv-1").map((one) => [one.id, one.image?.path]),
    [
      ["vol-r", "/images/disk.qcow2"],
      ["vol-1", undefined],
    ],
    "the image's disk is the first",
  );
  assert.deepEqual(wishes.inletsOf("srv-1"), {
    addresses: ["192.0.2.1", "192.0.2.9"],
    rules: [{ groupId: "grp-1", direction: "ingress", protocol: "tcp", fromPort: 80, toPort: 80 }],
  });
  assert.equal(wishes.volume("vol-r")?.image?.format, "qcow2");
  assert.equal(wishes.isGone("srv-1"), false);
  await store.transact((draft) => draft.remove("server", "srv-1"));
  assert.equal(wishes.isGone("srv-1"), true);
  assert.equal(wishes.volume("vol-r"), undefined);
  assert.equal(wishes.inletsOf("srv-1"), undefined);
});
