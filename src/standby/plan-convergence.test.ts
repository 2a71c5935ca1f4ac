import assert from "node:assert/strict";
import { test } from "node:test";
import type { CloudFacts } from "#cloud/contract.ts";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { resourceId } from "#kernel/ids.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { referencesOf, resourceKinds } from "#model/resource.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import type { ConvergenceAction, ConvergencePlan } from "./convergence-plan.ts";
import { mapReferences } from "./map-references.ts";
import type { Pairing } from "./pairings.ts";
import { pairingKey } from "./pairings.ts";
import { planConvergence } from "./plan-convergence.ts";
import type { Translation } from "./translate.ts";
import { noMappings } from "./translate.ts";

const facts: CloudFacts = {
  driver: "test",
  kinds: Object.fromEntries(resourceKinds.map((kind) => [kind, true])) as CloudFacts["kinds"],
  unsupportedFields: {},
  publicAddressOnCreate: true,
  networkNeedsCidr: true,
  userDataMutable: true,
  concurrency: 16,
  callsPerSecond: null,
  maxTagsPerResource: 50,
  maxUserDataBytes: 16_384,
};
const translation: Translation = {
  facts,
  source: shopCatalogue,
  target: memoryCatalogue,
  mappings: noMappings,
  sizing: "fit",
  nameSuffix: "",
};

/** Pairings as if a plan had been carried out. */
function carriedOut(plan: ConvergencePlan): Map<string, Pairing> {
  const standbyId = (kind: string, id: string): ResourceId => resourceId(`${kind}/${id}`);
  const pairings = new Map<string, Pairing>();
  for (const action of plan.actions) {
    if (action.type !== "create") continue;
    const { kind, activeId, source, target } = action;
    const counterpart = { ...target, spec: mapReferences(kind, target.spec, standbyId) };
    const pairing: Pairing = {
      kind,
      activeId,
      standbyId: standbyId(kind, activeId),
      state: "paired",
      token: activeId,
      applied: source,
      counterpart,
      confirmed: true,
      original: false,
    };
    pairings.set(pairingKey(pairing), pairing);
  }
  return pairings;
}

const held = (desired: Iterable<Resource>): Map<string, Pairing> =>
  carriedOut(planConvergence({ desired, pairings: new Map(), translation }));

function waitsFor(plan: ConvergencePlan, later: ConvergenceAction, first: ConvergenceAction): boolean {
  return later.waitsFor.some(({ on }) => {
    const action = plan.actions[on];
    return action !== undefined && (action === first || waitsFor(plan, action, first));
  });
}

function find(plan: ConvergencePlan, type: ConvergenceAction["type"], key: string): ConvergenceAction {
  const action = plan.actions.find((one) => one.type === type && one.key === key);
  assert.ok(action !== undefined, `${type} ${key} is in the plan`);
  return action;
}

const shop = shopEnvironment({ servers: 6, volumeEvery: 2, publicEvery: 3 });

test("what refers to another is created after it and deleted before it", () => {
  const made = planConvergence({ desired: shop, pairings: new Map(), translation });
  const away = planConvergence({ desired: [], pairings: held(shop), translation });
  for (const resource of shop) {
    const key = resourceKey(resource.kind, resource.id);
    for (const end of referencesOf(resource)) {
      const endKey = resourceKey(end.kind, end.id);
      assert.ok(
        waitsFor(made, find(made, "create", key), find(made, "create", endKey)),
        `${key} > ${endKey}`,
      );
      const [gone, endGone] = [find(away, "delete", key), find(away, "delete", endKey)];
      const implied = gone.type === "delete" && gone.implied && waitsFor(away, gone, endGone);
      assert.ok(implied || waitsFor(away, endGone, gone), `${endKey} outlives ${key}`);
    }
  }
  assert.equal(made.actions.length, shop.length);
  // Links end with their servers, rules that name no other group with their group.
  const links = shop.filter(({ kind }) => kind === "volumeAttachment").length;
  assert.equal(away.calls, shop.length - links - 1);
});

test("links wait for their ends to work", () => {
  const plan = planConvergence({ desired: shop, pairings: new Map(), translation });
  const link = plan.actions.find(({ kind }) => kind === "volumeAttachment");
  assert.ok(link !== undefined);
  assert.deepEqual(new Set(link.waitsFor.map(({ until }) => until)), new Set(["ready"]));
});

test("only what differs is changed", () => {
  const pairings = held(shop);
  assert.deepEqual(planConvergence({ desired: shop, pairings, translation }).actions, []);
  const desired = shop.map((one): Resource => {
    if (one.kind === "server" && one.id === "i-1")
      return { ...one, spec: { ...one.spec, type: "m5.xlarge" } };
    return one.id === "i-2" ? { ...one, tags: { ...one.tags, Name: "renamed", extra: "1" } } : one;
  });
  const plan = planConvergence({ desired, pairings, translation });
  const summary = plan.actions.map((action) =>
    action.type === "update"
      ? [action.type, action.key, action.fields]
      : action.type === "retag" && [action.type, action.key, action.set],
  );
  assert.deepEqual(summary, [
    ["update", "server:i-1", ["type"]],
    ["retag", "server:i-2", { Name: "renamed", extra: "1" }],
  ]);
});

test("what frees a prefix, a name or an address goes before what takes it", () => {
  const server = shop.find((one) => one.kind === "server");
  assert.ok(server?.kind === "server");
  const address: Resource = { kind: "address", id: resourceId("eip"), spec: {}, tags: {} };
  const association = (id: string, serverId: string): Resource => ({
    kind: "addressAssociation",
    id: resourceId(id),
    spec: { addressId: address.id, serverId: resourceId(serverId) },
    tags: {},
  });
  const subnet = (id: string, cidr: string): Resource => ({
    kind: "subnet",
    id: resourceId(id),
    spec: { networkId: resourceId("vpc-1"), cidr, publicAddresses: false },
    tags: {},
  });
  const group = (id: string): Resource => ({
    kind: "securityGroup",
    id: resourceId(id),
    spec: { networkId: resourceId("vpc-1"), name: "shared", description: "" },
    tags: {},
  });
  const before = [...shop, address, association("a1", "i-1"), subnet("s1", "10.0.200.0/24"), group("g1")];
  const after = [
    ...shop,
    address,
    association("a2", "i-2"),
    subnet("s2", "10.0.200.128/25"),
    subnet("s3", "10.0.201.0/24"),
    group("g2"),
  ];
  const plan = planConvergence({ desired: after, pairings: held(before), translation });
  for (const [kind, gone, taken] of [
    ["addressAssociation", "a1", "a2"],
    ["subnet", "s1", "s2"],
    ["securityGroup", "g1", "g2"],
  ] as const) {
    const [first, then] = [find(plan, "delete", `${kind}:${gone}`), find(plan, "create", `${kind}:${taken}`)];
    assert.ok(waitsFor(plan, then, first), `${taken} before ${gone}`);
  }
  assert.deepEqual(find(plan, "create", "subnet:s3").waitsFor, []);
});

test("a group that takes another's name while a server changes from one to the other is no circle", () => {
  const group = (id: string): Resource => ({
    kind: "securityGroup",
    id: resourceId(id),
    spec: { networkId: resourceId("vpc-1"), name: "shared", description: "" },
    tags: {},
  });
  const using = (id: string): Resource[] =>
    shop.map((one) =>
      one.kind === "server" && one.id === "i-1"
        ? { ...one, spec: { ...one.spec, groupIds: [resourceId(id)] } }
        : one,
    );
  const pairings = held([...using("g1"), group("g1")]);
  const plan = planConvergence({ desired: [...using("g2"), group("g2")], pairings, translation });
  const [made, moved, gone] = [
    find(plan, "create", "securityGroup:g2"),
    find(plan, "update", "server:i-1"),
    find(plan, "delete", "securityGroup:g1"),
  ];
  assert.ok(waitsFor(plan, moved, made) && waitsFor(plan, gone, moved));
});

test("a resource whose end has no counterpart is named, and nothing that has one is deleted for it", () => {
  const pairings = held(shop);
  const broken = shop.map((one): Resource =>
    one.kind === "server" && one.id === "i-0" ? { ...one, spec: { ...one.spec, imageId: "ami-new" } } : one,
  );
  const plan = planConvergence({ desired: broken, pairings, translation });
  assert.deepEqual(plan.actions, []);
  assert.deepEqual(
    plan.gaps.map(({ code, resource }) => [code, resource?.id]),
    [["image.unmapped", "i-0"]],
  );
});

test("the original of a translation is left as it is until the copy changes", () => {
  const there = held(shop);
  const inverted = new Map<string, Pairing>();
  const copies: Resource[] = [];
  for (const pairing of there.values()) {
    assert.ok(pairing.standbyId !== null && pairing.counterpart !== null);
    const { kind, activeId, standbyId, applied, counterpart } = pairing;
    const turned: Pairing = {
      ...pairing,
      activeId: standbyId,
      standbyId: activeId,
      applied: counterpart,
      counterpart: applied,
      original: true,
    };
    inverted.set(pairingKey(turned), turned);
    copies.push({ kind, id: standbyId, ...counterpart } as Resource);
  }
  const back: Translation = { ...translation, source: memoryCatalogue, target: shopCatalogue };
  assert.deepEqual(planConvergence({ desired: copies, pairings: inverted, translation: back }).actions, []);
  const resized = copies.map((one): Resource =>
    one.kind === "server" && one.id === "server/i-1" ? { ...one, spec: { ...one.spec, type: "tiny" } } : one,
  );
  const plan = planConvergence({ desired: resized, pairings: inverted, translation: back });
  assert.equal(plan.actions.length, 1);
  const [update] = plan.actions;
  assert.ok(update?.type === "update" && "type" in update.target.spec);
  assert.deepEqual([update.fields, update.target.spec.type], [["type"], "t3.micro"]);
});

test("a replaced key pair is deleted first, a replaced server takes its links along", () => {
  const pairings = held(shop);
  const desired = shop.map((one): Resource => {
    if (one.kind === "keyPair") return { ...one, spec: { ...one.spec, publicKey: "ssh-ed25519 BBBB" } };
    return one.kind === "server" && one.id === "i-0"
      ? { ...one, spec: { ...one.spec, imageId: "ami-debian" } }
      : one;
  });
  const plan = planConvergence({ desired, pairings, translation });
  for (const key of ["keyPair:deploy", "server:i-0", "volumeAttachment:vol-0@i-0"]) {
    assert.ok(waitsFor(plan, find(plan, "create", key), find(plan, "delete", key)), key);
  }
  const detached = find(plan, "delete", "volumeAttachment:vol-0@i-0");
  assert.ok(waitsFor(plan, find(plan, "delete", "server:i-0"), detached));
});

test("a key pair is replaced while a server that was made with it changes", () => {
  const desired = shop.map((one): Resource => {
    if (one.kind === "keyPair") return { ...one, spec: { ...one.spec, publicKey: "ssh-ed25519 BBBB" } };
    return one.kind === "server" && one.id === "i-1"
      ? { ...one, spec: { ...one.spec, type: "m5.xlarge" } }
      : one;
  });
  const plan = planConvergence({ desired, pairings: held(shop), translation });
  assert.deepEqual(plan.actions.map(({ type, key }) => `${type} ${key}`).toSorted(), [
    "create keyPair:deploy",
    "delete keyPair:deploy",
    "update server:i-1",
  ]);
});

test("reserve servers of the smallest type grow at takeover", () => {
  const small = planConvergence({
    desired: shop,
    pairings: new Map(),
    translation: { ...translation, sizing: "smallest" },
  });
  const types = small.actions.flatMap((one) =>
    one.type === "create" && "type" in one.target.spec ? [one.target.spec.type] : [],
  );
  assert.deepEqual(new Set(types.filter((name) => name !== undefined)), new Set(["tiny"]));
  const grown = planConvergence({ desired: shop, pairings: carriedOut(small), translation });
  assert.deepEqual(
    grown.actions.map((one) => [one.type, one.type === "update" && one.fields]),
    Array.from({ length: 6 }, () => ["update", ["type"]]),
  );
});
