// What happens to a bare host's servers when its agent is killed, the host is full, guests die, and the socket is the wrong one.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import type { Observed } from "#cloud/contract.ts";
import { collect } from "#cloud/contract.ts";
import { openHypervisorCloud } from "#drivers/hypervisor/hypervisor-cloud.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import { serveLocalApi } from "#wire/local-api/local-api-server.ts";
import { get, getOnce, skip, until } from "../devcloud-qemu/stage.ts";
import { HostUnderTest, servesItsName } from "./host-under-test.ts";
import { becomes, opened, port, request, serverSpec, urlOf } from "./one-server.ts";

const options = { skip, timeout: 240_000 };

/** Asked again as a careful caller does, until the agent that is back answers. */
async function again<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof OperationalError) || error.retry === "never") throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

test(
  "an agent that is killed in the middle of a create: one server, whenever it dies",
  options,
  async (t) => {
    await using host = await HostUnderTest.open({ addresses: "127.63.0.0/28" });
    const { cloud } = host;
    await host.start();
    const place = await opened(cloud, t.signal);
    for (const afterMs of [0, 4, 15, 400, 1500]) {
      const asked = request("server", serverSpec(place), `web-${afterMs}`);
      const first = cloud.create(asked, t.signal).catch((error: unknown) => error);
      await new Promise((resolve) => setTimeout(resolve, afterMs));
      await host.kill();
      const answer = await first;
      if (answer instanceof OperationalError) assert.notEqual(answer.outcome, "applied");
      await host.start();
      const made = await again(() => cloud.create({ ...asked, mayExist: true }, t.signal));
      const { id } = made.resource;
      if (!(answer instanceof Error)) assert.equal((answer as Observed).resource.id, id);
      const ready = await becomes(cloud, id, "ready", t.signal);
      assert.equal(await get(urlOf(ready), t.signal), `web-${afterMs}`);
      const listed = await collect(cloud.list("server", { scope: "test" }, t.signal));
      assert.deepEqual(
        listed.map(({ resource }) => resource.id),
        [id],
      );
      assert.deepEqual(host.machines, [id], "one machine");
      const pid = host.guestPid(id);
      await host.kill();
      await host.start();
      await becomes(cloud, id, "ready", t.signal);
      assert.equal(host.guestPid(id), pid, "the guest outlives its agent");
      await cloud.delete("server", id, t.signal);
      assert.deepEqual(host.machines, []);
    }
  },
);

test("under kills, disks come to a server and leave it as they were told", options, async (t) => {
  await using host = await HostUnderTest.open({ addresses: "127.63.0.16/28" });
  const { cloud } = host;
  await host.start();
  const place = await opened(cloud, t.signal);
  const made = await cloud.create(request("server", serverSpec(place), "web"), t.signal);
  const serverId = made.resource.id;
  await becomes(cloud, serverId, "ready", t.signal);
  const volume = await cloud.create(request("volume", { sizeGiB: 1 }, "data"), t.signal);
  const volumeId = volume.resource.id;
  const linkId = volumeAttachmentId(volumeId, serverId);
  const link = { volumeId, serverId, device: "/dev/sdf", deleteOnTermination: true };
  for (const afterMs of [0, 4, 15, 60]) {
    const attach = request("volumeAttachment", link, "link");
    const change = cloud.create(attach, t.signal).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    await host.kill();
    await change;
    await host.start();
    await again(() => cloud.create({ ...attach, mayExist: true }, t.signal));
    await until(async () => {
      const seen = await again(() => cloud.get("volumeAttachment", linkId, t.signal));
      return seen?.status === "ready";
    }, t.signal);
    const gone = cloud.delete("volumeAttachment", linkId, t.signal).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    await host.kill();
    await gone;
    await host.start();
    await again(() => cloud.delete("volumeAttachment", linkId, t.signal));
    assert.equal(await cloud.get("volumeAttachment", linkId, t.signal), undefined);
  }
  assert.equal(await get(urlOf(await becomes(cloud, serverId, "ready", t.signal)), t.signal), "web");
  const attached = await cloud.create(request("volumeAttachment", link, "link"), t.signal);
  assert.ok(attached);
  await cloud.delete("server", serverId, t.signal);
  assert.equal(await cloud.get("volume", volumeId, t.signal), undefined, "it ends with its server");
});

test("a full host refuses one more and keeps what it has", options, async (t) => {
  await using host = await HostUnderTest.open({
    addresses: "127.63.0.32/28",
    // Two small ones with what QEMU takes beside them.
    limits: "memory: 336MiB, cpus: 16, disk: 3GiB",
  });
  const { cloud } = host;
  await host.start();
  const place = await opened(cloud, t.signal);
  const ids: ResourceId[] = [];
  for (const name of ["web-1", "web-2"]) {
    ids.push((await cloud.create(request("server", serverSpec(place), name), t.signal)).resource.id);
  }
  const full = { code: "cloud.quota", outcome: "not_applied", message: /host metal is full: 168 more MiB/u };
  const third = request("server", serverSpec(place), "web-3");
  await assert.rejects(cloud.create(third, t.signal), full);
  const [first = "" as ResourceId] = ids;
  await assert.rejects(cloud.update("server", first, { type: "large" }, t.signal), { code: "cloud.quota" });
  await cloud.create(request("volume", { sizeGiB: 3 }, "data"), t.signal);
  await assert.rejects(cloud.create(request("volume", { sizeGiB: 1 }, "more"), t.signal), {
    code: "cloud.quota",
    message: /1 more GiB of disks are asked for, and of 3 there are 0 left/u,
  });
  for (const id of ids) await becomes(cloud, id, "ready", t.signal);
  // A server that is stopped takes no memory.
  await cloud.update("server", first, { power: "stopped" }, t.signal);
  assert.equal((await cloud.get("server", first, t.signal))?.status, "stopped");
  const made = await cloud.create({ ...third, mayExist: true }, t.signal);
  await becomes(cloud, made.resource.id, "ready", t.signal);
  await assert.rejects(cloud.update("server", first, { power: "running" }, t.signal), {
    code: "cloud.quota",
  });
  const stopped = await cloud.get("server", first, t.signal);
  assert.equal(stopped?.resource.spec.power, "stopped", "a refused change changes nothing");
});

test("a guest that dies is started again, one that turns itself off stays off", options, async (t) => {
  await using host = await HostUnderTest.open({ addresses: "127.63.0.48/28" });
  const { cloud } = host;
  await host.start();
  const place = await opened(cloud, t.signal);
  const made = await cloud.create(request("server", serverSpec(place), "web"), t.signal);
  const { id } = made.resource;
  const url = urlOf(await becomes(cloud, id, "ready", t.signal));
  assert.equal(await get(url, t.signal), "web");
  const pid = host.guestPid(id) ?? 0;
  process.kill(pid, "SIGKILL");
  await until(async () => host.guestPid(id) !== pid && host.guestPid(id) !== null, t.signal);
  await becomes(cloud, id, "ready", t.signal);
  assert.equal(await get(url, t.signal), "web");
  // Its ports close with its rule.
  const rules = await collect(cloud.list("securityGroupRule", {}, t.signal));
  for (const { resource } of rules) await cloud.delete("securityGroupRule", resource.id, t.signal);
  await until(
    () =>
      getOnce(url).then(
        () => false,
        () => true,
      ),
    t.signal,
  );
  const off = Buffer.from("#!/bin/sh\npoweroff -f\n").toString("base64");
  await cloud.update("server", id, { userData: off }, t.signal);
  const seen = await becomes(cloud, id, "stopped", t.signal);
  assert.equal(seen.resource.spec.power, "stopped");
  // What does not start says why, and does when it can.
  host.breakImage();
  await cloud.update("server", id, { power: "running", userData: servesItsName(port) }, t.signal);
  const failed = await becomes(cloud, id, "failed", t.signal);
  assert.match(failed.fault ?? "", /could not open kernel file/u);
  await host.mendImage();
  await cloud.update("server", id, { power: "running" }, t.signal);
  await becomes(cloud, id, "ready", t.signal);
});

test(
  "a guest that never becomes ready holds nobody up, and one that dies at its boot says so",
  options,
  async (t) => {
    await using host = await HostUnderTest.open({ addresses: "127.63.0.80/28" });
    const { cloud } = host;
    await host.start();
    const place = await opened(cloud, t.signal);
    const asked = request("server", { ...serverSpec(place), imageId: "hung" }, "web");
    const { id } = (await cloud.create(asked, t.signal)).resource;
    const running = (): Promise<number> => until(async () => host.guestPid(id) ?? undefined, t.signal);
    await running();
    // Its boot is given two minutes, twice: nobody has to wait for that.
    const soon = AbortSignal.timeout(30_000);
    await cloud.update("server", id, { power: "stopped" }, soon);
    assert.equal((await cloud.get("server", id, soon))?.status, "stopped");
    assert.equal(host.guestPid(id), null);
    await cloud.update("server", id, { power: "running" }, t.signal);
    await until(async () => host.console(id).includes("guest: ready"), t.signal);
    process.kill(await running(), "SIGKILL");
    const failed = await becomes(cloud, id, "failed", t.signal);
    assert.match(failed.fault ?? "", /died while it started/u);
    await cloud.update("server", id, { power: "running" }, t.signal);
    await running();
    await cloud.delete("server", id, AbortSignal.timeout(30_000));
    assert.deepEqual(host.machines, []);
  },
);

test("no agent, and what is no host agent, are told apart", async (t) => {
  await using host = await HostUnderTest.open({ addresses: "127.63.0.64/28" });
  await assert.rejects(host.cloud.identify(t.signal), {
    code: "cloud.unreachable",
    outcome: "not_applied",
    message: /host\.sock does not answer|nothing answers on .*host\.sock/u,
  });
  const socketPath = join(host.folder, "other.sock");
  await using other = await serveLocalApi({ socketPath, methods: {}, handlers: {}, log: silentLog });
  assert.ok(other);
  const cloud = openHypervisorCloud({ place: { socketPath }, outbound: false });
  try {
    await assert.rejects(cloud.identify(t.signal), {
      code: "cloud.protocol",
      message: /other\.sock is no host agent/u,
    });
  } finally {
    await cloud.close();
  }
});
