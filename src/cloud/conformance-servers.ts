/** Cases that make servers: the few that cost something. */
import assert from "node:assert/strict";
import type { Observed } from "#cloud/contract.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ServerSpec } from "#model/resource.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import type { ConformanceCase, ConformanceContext } from "./conformance-case.ts";

const base64 = (text: string): string => Buffer.from(text).toString("base64");

async function serverSpec(
  { sizes }: ConformanceContext,
  subnetId: ResourceId,
  more: Partial<ServerSpec> = {},
): Promise<ServerSpec> {
  return {
    imageId: sizes.imageId,
    type: sizes.type,
    subnetId,
    groupIds: [],
    userData: base64("#!/bin/sh\nexit 0\n"),
    publicAddress: false,
    power: "running",
    blockDevices: [],
    ...more,
  };
}

async function readyServer(
  context: ConformanceContext,
  more: Partial<ServerSpec> = {},
): Promise<{ server: Observed<"server">; subnetId: ResourceId; networkId: ResourceId }> {
  const { bench } = context;
  const { network, subnet } = await bench.network();
  const made = await bench.make("server", await serverSpec(context, subnet.id, more));
  const server = await bench.serverBecomes(made.resource.id, "ready");
  return { server, subnetId: subnet.id, networkId: network.id };
}

async function serverLife(context: ConformanceContext): Promise<void> {
  const { bench, cloud, signal } = context;
  const { network, subnet } = await bench.network();
  const group = async (): Promise<ResourceId> => {
    const spec = {
      networkId: network.id,
      name: bench.name(),
      description: "made by understudy cloud verify",
    };
    return (await bench.make("securityGroup", spec)).resource.id;
  };
  const [first, second] = [await group(), await group()];
  const request = bench.request("server", await serverSpec(context, subnet.id, { groupIds: [first] }));
  const made = await Promise.all([1, 2].map(() => bench.create({ ...request, mayExist: true })));
  const serverId = made[0]?.resource.id as ResourceId;
  assert.equal(made[1]?.resource.id, serverId, "one token, one server");
  const ready = await bench.serverBecomes(serverId, "ready");
  assert.equal(ready.resource.spec.imageId, request.spec.imageId);
  assert.equal(ready.resource.spec.type, request.spec.type);
  assert.deepEqual(ready.resource.spec.groupIds, [first]);
  assert.ok(ready.addresses.private.length > 0, "it has a private address");
  const again = await bench.create({ ...request, mayExist: true });
  assert.equal(again.resource.id, serverId, "its token still means it");
  assert.deepEqual(
    (await bench.list("server", { scope: bench.scope })).map(({ resource }) => resource.id),
    [serverId],
  );
  await bench.setTags("server", serverId, { tier: "web" }, []);
  await bench.update("server", serverId, { groupIds: [second] });
  const regrouped = await bench.get("server", serverId);
  assert.equal(regrouped?.resource.tags["tier"], "web");
  assert.deepEqual(regrouped?.resource.spec.groupIds, [second]);
  const refusal = await bench.expectRefusal(["cloud.conflict"], () =>
    cloud.delete("subnet", subnet.id, signal),
  );
  assert.equal(refusal.outcome, "not_applied", "a subnet with a server stays");

  await bench.delete("server", serverId);
  assert.equal(await bench.get("server", serverId), undefined, "a deleted server is gone");
  assert.deepEqual(await bench.list("server", { scope: bench.scope }), []);
  await bench.delete("server", serverId);
  await bench.delete("subnet", subnet.id);
  await bench.delete("securityGroup", second);
}

async function serverChanges(context: ConformanceContext): Promise<void> {
  const { bench, cloud, sizes } = context;
  const { server } = await readyServer(context);
  const { id } = server.resource;
  const type = async (): Promise<string | undefined> => (await bench.get("server", id))?.resource.spec.type;
  if (sizes.otherType !== undefined) {
    await bench.update("server", id, { type: sizes.otherType });
    assert.equal(await type(), sizes.otherType);
    await bench.serverBecomes(id, "ready");
  }
  for (let time = 0; time < 2; time += 1) await bench.update("server", id, { power: "stopped" });
  await bench.serverBecomes(id, "stopped");
  if (cloud.facts.userDataMutable) {
    await bench.update("server", id, { userData: base64("#!/bin/sh\necho changed\n") });
  }
  await bench.update("server", id, { type: sizes.type });
  assert.equal(await type(), sizes.type, "a stopped server is resized too");
  const stopped = await bench.get("server", id);
  assert.equal(stopped?.resource.spec.power, "stopped", "and stays stopped");
  await bench.update("server", id, { power: "running" });
  await bench.serverBecomes(id, "ready");
}

async function serverVolumes(context: ConformanceContext): Promise<void> {
  const { bench } = context;
  const { server } = await readyServer(context);
  const serverId = server.resource.id;
  const zone = server.resource.spec.zone;
  const volume = async (): Promise<ResourceId> => {
    const spec = { sizeGiB: context.sizes.volumeGiB, ...(zone === undefined ? {} : { zone }) };
    return (await bench.make("volume", spec)).resource.id;
  };
  const [kept, ends] = [await volume(), await volume()];
  const attach = async (
    volumeId: ResourceId,
    device: string,
    deleteOnTermination: boolean,
  ): Promise<void> => {
    const spec = { volumeId, serverId, device, deleteOnTermination };
    const made = await bench.make("volumeAttachment", spec, {});
    assert.equal(made.resource.id, volumeAttachmentId(volumeId, serverId));
    const again = await bench.make("volumeAttachment", spec, {});
    assert.equal(again.resource.id, made.resource.id, "attaching it again is no second attachment");
  };
  await attach(kept, "/dev/sdf", false);
  await attach(
    ends,
    "/dev/sdg",
    !context.cloud.facts.unsupportedFields.volumeAttachment?.includes("deleteOnTermination"),
  );
  const seen = await bench.list("volumeAttachment", {});
  const ours = seen.filter(({ resource }) => resource.spec.serverId === serverId);
  assert.deepEqual(ours.map(({ resource }) => resource.spec.volumeId).sort(), [kept, ends].sort());
  for (let time = 0; time < 2; time += 1) {
    await bench.delete("volumeAttachment", volumeAttachmentId(kept, serverId));
  }
  assert.equal(await bench.get("volumeAttachment", volumeAttachmentId(kept, serverId)), undefined);
  await attach(kept, "/dev/sdf", false);
  await bench.delete("server", serverId);
  assert.equal(await bench.get("volumeAttachment", volumeAttachmentId(kept, serverId)), undefined);
  assert.ok(await bench.get("volume", kept), "a volume outlives its server");
  if (!context.cloud.facts.unsupportedFields.volumeAttachment?.includes("deleteOnTermination")) {
    await bench.until("the volume that ends with its server to be gone", async () =>
      (await bench.get("volume", ends)) === undefined ? true : undefined,
    );
  }
}

async function serverAddresses(context: ConformanceContext): Promise<void> {
  const { bench, cloud } = context;
  const wanted = cloud.facts.publicAddressOnCreate;
  const { server } = await readyServer(context, { publicAddress: wanted });
  const serverId = server.resource.id;
  assert.equal(server.addresses.public.length, wanted ? 1 : 0, "a public address only if asked for");
  const address = await bench.make("address", {});
  const addressId = address.resource.id;
  const publicIp = (await bench.get("address", addressId))?.resource.spec.publicIp;
  assert.ok(publicIp, "an address has an address");
  const associate = () => bench.make("addressAssociation", { addressId, serverId }, {});
  const made = await associate();
  assert.equal((await associate()).resource.id, made.resource.id, "associating again changes nothing");
  const reached = await bench.get("server", serverId);
  assert.ok(reached?.addresses.public.includes(publicIp), "the server is reached by it");
  assert.ok(await bench.get("addressAssociation", made.resource.id));
  for (let time = 0; time < 2; time += 1) await bench.delete("addressAssociation", made.resource.id);
  const after = await bench.get("server", serverId);
  assert.ok(!after?.addresses.public.includes(publicIp), "and not any more");
  await associate();
  await bench.delete("address", addressId);
  assert.equal(await bench.get("address", addressId), undefined, "an address goes with its association");
}

async function failedServer(context: ConformanceContext): Promise<void> {
  const { bench } = context;
  const { subnet } = await bench.network();
  await context.harness.failNextServer?.();
  const made = await bench.make("server", await serverSpec(context, subnet.id));
  const failed = await bench.until("the server to fail", async () => {
    const seen = await bench.get("server", made.resource.id);
    return seen?.status === "failed" ? seen : undefined;
  });
  assert.ok((failed.fault ?? "").length > 0, "a failed server says why");
  await bench.delete("server", made.resource.id);
  assert.equal(await bench.get("server", made.resource.id), undefined);
}

const base = ["network", "subnet", "server"] as const;

export const serverCases: readonly ConformanceCase[] = [
  {
    name: "server: made once, seen, regrouped, tagged, deleted",
    needs: [...base, "securityGroup"],
    makesServers: true,
    run: serverLife,
  },
  { name: "server: resized, stopped, started", needs: base, makesServers: true, run: serverChanges },
  {
    name: "server: volumes come, go, and end with it",
    needs: [...base, "volume", "volumeAttachment"],
    makesServers: true,
    run: serverVolumes,
  },
  {
    name: "server: reached by an address of its own",
    needs: [...base, "address", "addressAssociation"],
    makesServers: true,
    run: serverAddresses,
  },
  {
    name: "server: a failure is told with its reason",
    needs: base,
    harness: ["failNextServer"],
    makesServers: true,
    run: failedServer,
  },
];
