import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { systemRandom } from "#kernel/random.ts";
import { createMemoryCloud } from "./memory-cloud.ts";

const signal = new AbortController().signal;
const ports = { clock: systemClock, random: systemRandom };
const network = (token: string) =>
  ({
    kind: "network",
    spec: { cidr: "10.0.0.0/16", internet: true },
    tags: { Name: "shop" },
    token,
    scope: "shop",
    mayExist: true,
  }) as const;

void test("the same token makes one resource, at once or one after the other", async () => {
  const cloud = createMemoryCloud({ ...ports, latencyMs: 2 });
  const made = await Promise.all([1, 2, 3].map(() => cloud.create(network("t1"), signal)));
  const again = await cloud.create(network("t1"), signal);
  assert.equal(new Set([...made, again].map(({ resource }) => resource.id)).size, 1);
  assert.equal(cloud.inspect.created, 1);
  assert.equal(cloud.inspect.callsOf("create"), 4);
});

void test("a network with a subnet is kept, and quotas and overlaps are refused", async () => {
  const cloud = createMemoryCloud({ ...ports, quotas: { network: 1 } });
  const { resource } = await cloud.create(network("n"), signal);
  const subnet = (token: string, cidr: string) =>
    cloud.create(
      {
        kind: "subnet",
        spec: { networkId: resource.id, cidr, publicAddresses: false },
        tags: {},
        token,
        scope: "shop",
        mayExist: false,
      },
      signal,
    );
  const made = await subnet("s1", "10.0.1.0/24");
  await assert.rejects(subnet("s2", "10.0.1.128/25"), (error) => isOperational(error, "cloud.conflict"));
  await assert.rejects(subnet("s3", "10.1.0.0/24"), (error) => isOperational(error, "cloud.refused"));
  await assert.rejects(cloud.create(network("n2"), signal), (error) => isOperational(error, "cloud.quota"));
  await assert.rejects(
    cloud.delete("network", resource.id, signal),
    (error) => isOperational(error, "cloud.conflict") && error.retry === "later",
  );
  await cloud.delete("subnet", made.resource.id, signal);
  await cloud.delete("network", resource.id, signal);
  assert.deepEqual(cloud.inspect.resources(), []);
});

void test("calls above the rate are throttled and told how long to wait", async () => {
  let now = 0;
  const clock = { now: () => now, monotonicMs: () => now, sleep: async () => {} };
  const cloud = createMemoryCloud({ clock, random: systemRandom, callsPerSecond: 10, burst: 1 });
  await cloud.identify(signal);
  await assert.rejects(
    cloud.identify(signal),
    (error) => isOperational(error, "cloud.throttled") && error.retryAfterMs === 100,
  );
  now += 100;
  await cloud.identify(signal);
  assert.equal(cloud.inspect.throttled, 1);
});

void test("deleting a server takes its attachments and the volumes that end with it", async () => {
  const cloud = createMemoryCloud(ports);
  const common = { tags: {}, scope: "shop", mayExist: false } as const;
  const server = await cloud.create(
    {
      ...common,
      kind: "server",
      token: "srv",
      spec: {
        imageId: "img-web",
        type: "small",
        groupIds: [],
        publicAddress: true,
        power: "running",
        blockDevices: [],
      },
    },
    signal,
  );
  assert.equal(server.addresses.public.length, 1);
  for (const [token, deleteOnTermination] of [
    ["v1", true],
    ["v2", false],
  ] as const) {
    const volume = await cloud.create({ ...common, kind: "volume", token, spec: { sizeGiB: 1 } }, signal);
    await cloud.create(
      {
        ...common,
        kind: "volumeAttachment",
        token: `${token}-at`,
        spec: {
          volumeId: volume.resource.id,
          serverId: server.resource.id,
          device: `/dev/${token}`,
          deleteOnTermination,
        },
      },
      signal,
    );
  }
  await cloud.delete("server", server.resource.id, signal);
  assert.deepEqual(
    cloud.inspect.resources().map(({ kind }) => kind),
    ["volume"],
  );
});
