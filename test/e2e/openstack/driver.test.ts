/** What the driver does beyond the contract's own suite, against a real OpenStack. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { CreateRequest, Observed } from "#cloud/contract.ts";
import { collect } from "#cloud/contract.ts";
import { systemClock } from "#kernel/clock.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import type { ResourceKind, ResourceSpecs, ServerSpec } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";
import { openFromEnvironment } from "./cloud-from-environment.ts";

const cloud = openFromEnvironment();
const scope = `e2e-${systemRandom.hex(4)}`;
const { signal } = new AbortController();

function request<K extends ResourceKind>(
  kind: K,
  spec: ResourceSpecs[K],
  name = `${scope}-${kind}`,
): CreateRequest<K> {
  return { kind, spec, tags: { Name: name }, token: `t-${systemRandom.hex(12)}`, scope, mayExist: false };
}

async function make<K extends ResourceKind>(kind: K, spec: ResourceSpecs[K]): Promise<ResourceId> {
  return (await cloud.create(request(kind, spec), signal)).resource.id;
}

async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const seen = await look();
    if (seen !== undefined) return seen;
    await systemClock.sleep(250);
  }
}

function becomes(id: ResourceId, status: Observed["status"]): Promise<Observed<"server">> {
  return until(async () => {
    const seen = await cloud.get("server", id, signal);
    assert.ok(seen?.status === "failed" ? status === "failed" : true, seen?.fault);
    return seen?.status === status ? seen : undefined;
  });
}

let sizes: { imageId: string; type: string; otherType: string | undefined };
let networkId: ResourceId;
let subnets: ResourceId[];

before(async () => {
  const { images, types } = await cloud.catalogue(signal);
  const [image] = images;
  const [small, other] = types.toSorted((a, b) => a.memoryMiB - b.memoryMiB);
  assert.ok(image && small, "the cloud needs an image and a flavor");
  sizes = { imageId: image.id, type: small.name, otherType: other?.name };
  networkId = await make("network", { internet: false });
  const subnet = (cidr: string) => make("subnet", { networkId, cidr, publicAddresses: false });
  subnets = [await subnet("10.96.1.0/24"), await subnet("10.96.2.0/24")];
});

after(async () => {
  const links: ResourceKind[] = ["securityGroupRule", "volumeAttachment", "addressAssociation"];
  for (const kind of resourceKinds.toReversed()) {
    if (links.includes(kind)) continue;
    for (const { resource } of await collect(cloud.list(kind, { scope }, signal))) {
      await cloud.delete(kind, resource.id, signal);
    }
  }
  await cloud.close();
});

function serverSpec(more: Partial<ServerSpec> = {}): ServerSpec {
  const base = { imageId: sizes.imageId, type: sizes.type, groupIds: [], publicAddress: false } as const;
  return { ...base, power: "running", blockDevices: [], ...more };
}

void test("a server stands in the subnet that was asked for, also in a network with several", async () => {
  for (const subnetId of subnets) {
    const id = await make("server", serverSpec({ subnetId }));
    const { resource, addresses } = await becomes(id, "ready");
    assert.equal(resource.spec.subnetId, subnetId);
    assert.equal(addresses.private.length, 1);
    await cloud.delete("server", id, signal);
  }
});

void test("a server with an address of its own, made stopped", async () => {
  const spec = serverSpec({ subnetId: subnets[1] as ResourceId, privateIp: "10.96.2.77", power: "stopped" });
  const made = await cloud.create(request("server", spec), signal);
  assert.equal(made.status, "stopped");
  const seen = await cloud.get("server", made.resource.id, signal);
  assert.deepEqual(seen?.addresses.private, ["10.96.2.77"]);
  assert.equal(seen?.resource.spec.power, "stopped");
});

void test("the same token in another process finds the server, while it is built and after", async () => {
  const asked = request("server", serverSpec({ subnetId: subnets[0] as ResourceId }));
  const made = await cloud.create(asked, signal);
  const other = openFromEnvironment();
  try {
    const again = await other.create({ ...asked, mayExist: true }, signal);
    assert.equal(again.resource.id, made.resource.id);
    await becomes(made.resource.id, "ready");
    const later = await other.create({ ...asked, mayExist: true }, signal);
    assert.equal(later.resource.id, made.resource.id);
  } finally {
    await other.close();
  }
});

void test("a create whose answer was lost makes one server", async () => {
  for (const afterMs of [0, 20, 100, 300]) {
    const asked = request("server", serverSpec({ subnetId: subnets[0] as ResourceId }), `lost-${afterMs}`);
    const lost = cloud.create(asked, AbortSignal.timeout(afterMs)).then(
      () => undefined,
      () => undefined,
    );
    await lost;
    await cloud.create({ ...asked, mayExist: true }, signal);
    const found = await collect(cloud.list("server", { scope, tags: { Name: `lost-${afterMs}` } }, signal));
    assert.equal(found.length, 1, `after ${afterMs} ms`);
  }
});

void test("disks of a server come and go with it", async () => {
  const device = { device: "", sizeGiB: 1, deleteOnTermination: true };
  const spec = serverSpec({ subnetId: subnets[0] as ResourceId, blockDevices: [device] });
  const id = await make("server", spec);
  await becomes(id, "ready");
  const attached = async (): Promise<string[]> =>
    (await collect(cloud.list("volumeAttachment", {}, signal)))
      .filter(({ resource }) => resource.spec.serverId === id)
      .map(({ resource }) => resource.spec.volumeId);
  const [volume] = await until(async () => {
    const volumes = await attached();
    return volumes.length === 1 ? volumes : undefined;
  });
  await cloud.delete("server", id, signal);
  await until(async () =>
    (await cloud.get("volume", volume as ResourceId, signal)) === undefined ? true : undefined,
  );
});

void test("a resize that was given up at any moment is finished by the next call", async () => {
  const { otherType } = sizes;
  if (otherType === undefined) return assert.fail("the cloud needs two flavors");
  const id = await make("server", serverSpec({ subnetId: subnets[0] as ResourceId }));
  await becomes(id, "ready");
  let type = sizes.type;
  for (const afterMs of [50, 400, 1200]) {
    type = type === otherType ? sizes.type : otherType;
    const given = cloud.update("server", id, { type }, AbortSignal.timeout(afterMs)).then(
      () => undefined,
      () => undefined,
    );
    await given;
    await cloud.update("server", id, { type }, signal);
    const seen = await cloud.get("server", id, signal);
    assert.deepEqual([seen?.resource.spec.type, seen?.status], [type, "ready"], `after ${afterMs} ms`);
  }
});

void test("internet access comes and goes", async () => {
  const internet = async (): Promise<boolean | undefined> =>
    (await cloud.get("network", networkId, signal))?.resource.spec.internet;
  assert.equal(await internet(), false);
  for (const wanted of [true, true, false]) {
    await cloud.update("network", networkId, { internet: wanted }, signal);
    assert.equal(await internet(), wanted);
    const [listed] = await collect(cloud.list("network", { ids: [networkId] }, signal));
    assert.equal(listed?.resource.spec.internet, wanted);
  }
});

void test("a group's description of full length is kept whole", async () => {
  const description = `${"long, ".repeat(42)}end`;
  assert.equal(description.length, 255);
  const id = await make("securityGroup", { name: "long", description });
  assert.equal((await cloud.get("securityGroup", id, signal))?.resource.spec.description, description);
  await cloud.update("securityGroup", id, { description: "short" }, signal);
  assert.equal((await cloud.get("securityGroup", id, signal))?.resource.spec.description, "short");
});

void test("a volume grows", async () => {
  const id = await make("volume", { sizeGiB: 1 });
  for (let time = 0; time < 2; time += 1) await cloud.update("volume", id, { sizeGiB: 2 }, signal);
  assert.equal((await cloud.get("volume", id, signal))?.resource.spec.sizeGiB, 2);
});

void test("what names something that is not there is refused in words", async () => {
  const refused = (more: Partial<ServerSpec>) => cloud.create(request("server", serverSpec(more)), signal);
  const subnetId = subnets[0] as ResourceId;
  await assert.rejects(refused({ subnetId, type: "no-such-flavor" }), { code: "cloud.not_found" });
  await assert.rejects(refused({ subnetId, imageId: "no-such-image" }), { code: "cloud.not_found" });
  await assert.rejects(refused({ subnetId, keyName: "no-such-key" }), { code: "cloud.not_found" });
  // The port that was made for the refused server went with the refusal: the subnet is free to go.
  const spec = { networkId, cidr: "10.96.3.0/24", publicAddresses: false };
  const third = await make("subnet", spec);
  await assert.rejects(refused({ subnetId: third, keyName: "no-such-key" }), { code: "cloud.not_found" });
  await cloud.delete("subnet", third, signal);
});
