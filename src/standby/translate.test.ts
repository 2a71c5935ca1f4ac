import assert from "node:assert/strict";
import { test } from "node:test";
import type { Catalogue, CloudFacts, ServerType } from "#cloud/contract.ts";
import { forwardedRules } from "#cloud/rule-forms.ts";
import { resourceId } from "#kernel/ids.ts";
import type { Resource } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import { fitType, smallestType } from "./fit-type.ts";
import type { Translation } from "./translate.ts";
import { createTranslator, expandForTarget, noMappings } from "./translate.ts";

const type = (
  name: string,
  vcpus: number,
  memoryMiB: number,
  gpus = 0,
  architecture = "x86_64",
): ServerType => ({
  name,
  vcpus,
  memoryMiB,
  gpus,
  architecture,
});

const target: Catalogue = {
  types: [
    type("m1.tiny", 1, 512),
    type("m1.medium", 2, 4096),
    type("m1.large", 4, 8192),
    type("m1.xlarge", 8, 16_384),
    type("a1.large", 4, 16_384, 0, "arm64"),
    type("g1.large", 4, 16_384, 1),
  ],
  images: [
    { id: "uuid-debian", name: "debian-12", architecture: "x86_64" },
    { id: "uuid-web", name: "web", architecture: "x86_64" },
  ],
  zones: ["nova"],
};

const facts: CloudFacts = {
  driver: "test",
  kinds: Object.fromEntries(resourceKinds.map((kind) => [kind, true])) as CloudFacts["kinds"],
  unsupportedFields: { subnet: ["zone"], securityGroup: ["networkId"], volume: ["iops"], network: ["cidr"] },
  publicAddressOnCreate: false,
  networkNeedsCidr: false,
  userDataMutable: false,
  concurrency: 8,
  callsPerSecond: null,
  maxTagsPerResource: 6,
  maxUserDataBytes: 8,
};

const translation: Translation = {
  facts,
  source: shopCatalogue,
  target,
  mappings: noMappings,
  sizing: "fit",
  nameSuffix: "",
};

function translateOne(resource: Resource, changed: Partial<Translation> = {}, among: Resource[] = []) {
  return createTranslator({ ...translation, ...changed }, [...among, resource])(resource);
}

function serverOf(spec: Partial<Extract<Resource, { kind: "server" }>["spec"]> = {}): Resource {
  const server = shopEnvironment({ servers: 1 }).find((one) => one.kind === "server");
  assert.ok(server?.kind === "server");
  return { ...server, spec: { ...server.spec, ...spec } };
}

test("a type becomes the one that wastes least, of the same architecture, never a smaller one", () => {
  const fit = (source: ServerType): string | undefined => fitType(source, target)?.name;
  assert.equal(fit(type("t3.micro", 2, 1024)), "m1.medium");
  assert.equal(fit(type("r5.large", 2, 16_384)), "m1.xlarge");
  assert.equal(fit(type("t4g", 2, 2048, 0, "arm64")), "a1.large");
  assert.equal(fit(type("g4", 4, 8192, 1)), "g1.large");
  assert.equal(fit(type("huge", 64, 262_144)), undefined);
  assert.equal(smallestType("x86_64", target)?.name, "m1.tiny");
});

test("the table wins over the fit, and what fits nowhere is a gap that says so", () => {
  const mapped = translateOne(serverOf(), {
    mappings: { ...noMappings, types: { "t3.medium": "m1.xlarge" }, images: { web: "debian-12" } },
  });
  assert.ok("spec" in mapped && "imageId" in mapped.spec);
  assert.deepEqual([mapped.spec.type, mapped.spec.imageId], ["m1.xlarge", "uuid-debian"]);
  for (const [spec, code] of [
    [{ type: "x9.huge" }, "type.unmapped"],
    [{ imageId: "ami-gone" }, "image.unmapped"],
  ] as const) {
    const translated = translateOne(serverOf(spec));
    assert.ok("gap" in translated);
    assert.equal(translated.gap.code, code);
  }
});

test("a name from outside is not a property of the table", () => {
  const translated = translateOne(serverOf({ type: "constructor", imageId: "__proto__" }));
  assert.ok("gap" in translated && translated.gap.code === "image.unmapped");
});

test("user data that is too large, iops and surplus tags are named and left out", () => {
  const server = translateOne(serverOf({ userData: Buffer.from("#!/bin/sh\n").toString("base64") }));
  assert.ok("spec" in server && !("userData" in server.spec));
  assert.deepEqual(
    server.gaps.map(({ code }) => code),
    ["field.untranslated"],
  );
  const tags = Object.fromEntries(["e", "d", "c", "b", "a"].map((name) => [name, "1"]));
  const volume: Resource = {
    kind: "volume",
    id: resourceId("vol"),
    spec: { sizeGiB: 5, type: "gp3", iops: 4000, zone: "eu-1b", snapshotId: resourceId("snap") },
    tags: { ...tags, Name: "disk" },
  };
  const made = translateOne(volume);
  assert.ok("spec" in made);
  assert.deepEqual(made.spec, { sizeGiB: 5, zone: "nova" });
  assert.deepEqual(Object.keys(made.tags), ["Name", "a", "b", "c"]);
  assert.deepEqual(
    made.gaps.map(({ code }) => code),
    ["data.not_captured", "field.untranslated", "field.untranslated"],
  );
});

test("a public address becomes one of its own where the site can't give it at creation", () => {
  const shop = shopEnvironment({ servers: 4, publicEvery: 2 });
  const synthetic = expandForTarget(shop, facts).slice(shop.length);
  assert.deepEqual(
    synthetic.map(({ kind, id }) => [kind, id]),
    ["i-0", "i-2"].flatMap((id) => [
      ["address", `${id}/public`],
      ["addressAssociation", `${id}/public`],
    ]),
  );
  const server = translateOne(serverOf({ publicAddress: true }));
  assert.ok("spec" in server && "publicAddress" in server.spec && !server.spec.publicAddress);
  assert.equal(expandForTarget(shop, { ...facts, publicAddressOnCreate: true }).length, shop.length);
});

test("a network without a prefix gets one that holds its subnets, with room", () => {
  const network: Resource = { kind: "network", id: resourceId("net"), spec: { internet: true }, tags: {} };
  const subnet = (id: string, cidr: string): Resource => ({
    kind: "subnet",
    id: resourceId(id),
    spec: { networkId: network.id, cidr, publicAddresses: false },
    tags: {},
  });
  const needs = { facts: { ...facts, networkNeedsCidr: true, unsupportedFields: {} } };
  const near = translateOne(network, needs, [subnet("a", "10.1.2.0/24"), subnet("b", "10.1.200.0/24")]);
  assert.ok("spec" in near);
  assert.deepEqual(near.spec, { internet: true, cidr: "10.1.0.0/16" });
  const far = translateOne(network, needs, [subnet("a", "10.1.2.0/24"), subnet("b", "192.168.0.0/24")]);
  assert.ok("gap" in far && far.gap.severity === "lost");
});

test("groups: the reserved name, doubles, and the network of the servers that use them", () => {
  const group = (id: string, name: string): Resource => ({
    kind: "securityGroup",
    id: resourceId(id),
    spec: { name, description: "" },
    tags: {},
  });
  const shop = shopEnvironment({ servers: 3 }).filter(({ kind }) => kind !== "securityGroup");
  const all = [
    ...shop,
    group("sg-web", "default"),
    group("sg-x11111111", "twin"),
    group("sg-y22222222", "twin"),
  ];
  const translate = createTranslator({ ...translation, facts: { ...facts, unsupportedFields: {} } }, all);
  const made = all.slice(shop.length).map((one) => {
    const translated = translate(one);
    assert.ok("spec" in translated);
    return translated.spec;
  });
  assert.deepEqual(made, [
    { name: "understudy-default", description: "", networkId: "vpc-1" },
    { name: "twin", description: "", networkId: "vpc-1" },
    { name: "twin-22222222", description: "", networkId: "vpc-1" },
  ]);
});

test("rules: protocol numbers, and icmp between IPv6 peers", () => {
  const rule = (protocol: string, cidr: string): Resource => ({
    kind: "securityGroupRule",
    id: resourceId("r"),
    spec: { groupId: resourceId("g"), direction: "ingress", protocol, peer: { cidr } },
    tags: {},
  });
  const protocolOf = (one: Resource): string => {
    const made = translateOne(one);
    assert.ok("spec" in made && "protocol" in made.spec);
    return made.spec.protocol;
  };
  assert.deepEqual(
    [rule("6", "0.0.0.0/0"), rule("-1", "0.0.0.0/0"), rule("icmp", "::/0"), rule("50", "10.0.0.0/8")].map(
      protocolOf,
    ),
    ["tcp", "all", "icmpv6", "50"],
  );
});

test("a key pair without its public key is a gap; a drill's bears the drill's name", () => {
  const key = (publicKey?: string): Resource => ({
    kind: "keyPair",
    id: resourceId("deploy"),
    spec: { name: "deploy", ...(publicKey === undefined ? {} : { publicKey }) },
    tags: {},
  });
  assert.ok("gap" in translateOne(key()));
  const drill = translateOne(key("ssh-ed25519 AAAA"), { nameSuffix: "-drill-7f3a" });
  assert.ok("spec" in drill && "name" in drill.spec);
  assert.equal(drill.spec.name, "deploy-drill-7f3a");
});

void test("a rule that the site cannot enforce is a gap, and is not opened to more than it names", () => {
  const [rule] = shopEnvironment({ servers: 1 }).filter((one) => one.kind === "securityGroupRule");
  assert.ok(rule?.kind === "securityGroupRule");
  const narrow = { ...rule, spec: { ...rule.spec, peer: { cidr: "10.0.0.0/8" } } };
  const forwards = { facts: { ...facts, enforcedRules: forwardedRules(false) } };
  const refused = translateOne(narrow, forwards);
  assert.ok("gap" in refused);
  assert.equal(refused.gap.code, "rule.unenforced");
  assert.ok("spec" in translateOne(narrow));
  const open = { ...rule.spec, protocol: "6", fromPort: 80, toPort: 80, peer: { cidr: "0.0.0.0/0" } };
  assert.ok("spec" in translateOne({ ...rule, spec: { ...open, direction: "ingress" } }, forwards));
});
