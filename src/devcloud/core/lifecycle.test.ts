import assert from "node:assert/strict";
import test from "node:test";
import { openNoCompute } from "#devcloud/compute/no-compute.ts";
import { silentLog } from "#kernel/log.ts";
import { allocateAddress, associateAddress } from "./addresses.ts";
import type { Cloud } from "./cloud.ts";
import type { Compute } from "./compute.ts";
import { createGroup } from "./groups.ts";
import { startLifecycle, type Lifecycle } from "./lifecycle.ts";
import { createNetwork, createSubnet, deleteSubnet } from "./networks.ts";
import { openCloud } from "./open-cloud.ts";
import { Refusal, type RefusalReason } from "./refusal.ts";
import { createServer, rebootServer, startServer, stopServer, terminateServer } from "./servers.ts";
import { idempotent } from "./tokens.ts";

const instant = { bootMs: 0, stopMs: 0, terminatedRetentionMs: 1000 };

interface Fixture {
  readonly cloud: Cloud;
  readonly lifecycle: Lifecycle;
  readonly subnetId: string;
  readonly groupId: string;
  readonly launch: () => string;
}

function fixture(compute: Compute = openNoCompute()): Fixture {
  const cloud = openCloud({
    dataDir: null,
    ids: { make: (kind, random) => `${kind}-${random.hex(4)}`, wellFormed: () => true },
    catalog: {
      region: "r",
      zones: ["z"],
      images: [
        {
          id: "image",
          name: "",
          description: "",
          architecture: "x86_64",
          rootDevice: "/dev/vda",
          rootSizeGiB: 1,
          createdAt: 0,
        },
      ],
      types: [{ id: "small", name: "small", vcpus: 2, memoryMiB: 512, diskGiB: 0, architecture: "x86_64" }],
    },
  });
  const lifecycle = startLifecycle(cloud, compute, instant, silentLog);
  const [subnetId, groupId] = cloud.data.transact(() => {
    const network = createNetwork(cloud, { cidr: "10.0.0.0/16" });
    const subnet = createSubnet(cloud, { networkId: network.id, cidr: "10.0.0.0/29", zone: "z" });
    return [subnet.id, createGroup(cloud, { name: "g", description: "" }).id] as const;
  });
  const launch = (): string =>
    cloud.data.transact(
      () =>
        createServer(cloud, {
          imageId: "image",
          type: "small",
          publicAddress: false,
          ports: [{ subnetId, groupIds: [groupId] }],
          volumes: [{ sizeGiB: 1, type: "t", device: "/dev/vda", deleteOnTermination: true }],
        }).id,
    );
  return { cloud, lifecycle, subnetId, groupId, launch };
}

function reasonOf(work: () => unknown): RefusalReason["code"] {
  try {
    work();
  } catch (error) {
    if (error instanceof Refusal) return error.reason.code;
    throw error;
  }
  throw new Error("it was not refused");
}

void test("through all states and out, leaving nothing behind", async () => {
  const { cloud, lifecycle, subnetId, launch } = fixture();
  const { transact, tables } = { transact: cloud.data.transact.bind(cloud.data), tables: cloud.data.tables };
  const id = launch();
  assert.equal(tables.server.get(id)?.state, "pending");
  await lifecycle.settled();
  assert.equal(tables.server.get(id)?.state, "running");
  assert.equal(
    reasonOf(() => transact(() => deleteSubnet(cloud, subnetId))),
    "in_use",
  );
  const address = transact(() => allocateAddress(cloud));
  const portId = tables.server.get(id)?.portIds[0] ?? "";
  transact(() => associateAddress(cloud, { addressId: address.id, portId }));
  transact(() => stopServer(cloud, id));
  await lifecycle.settled();
  assert.equal(tables.server.get(id)?.state, "stopped");
  assert.equal(lifecycle.compute.status(id), "absent");
  assert.equal(
    reasonOf(() => transact(() => rebootServer(cloud, id))),
    "wrong_state",
  );
  transact(() => startServer(cloud, id));
  await lifecycle.settled();
  assert.equal(lifecycle.compute.status(id), "running");
  transact(() => terminateServer(cloud, id));
  await lifecycle.settled();
  assert.equal(tables.server.get(id)?.state, "terminated");
  assert.equal(tables.port.size, 0);
  assert.equal(tables.volume.size, 0);
  assert.equal(tables.address.get(address.id)?.association, null);
  assert.equal(
    reasonOf(() => transact(() => startServer(cloud, id))),
    "wrong_state",
  );
  transact(() => deleteSubnet(cloud, subnetId));
});

void test("a termination asked for while the machine starts is not lost", async () => {
  const calls: string[] = [];
  let started: () => void = () => {};
  const starting = new Promise<void>((resolve) => (started = resolve));
  let release: () => void = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  const { cloud, lifecycle, launch } = fixture({
    ...openNoCompute(),
    start: async () => {
      started();
      await released;
      calls.push("started");
    },
    stop: () => {
      calls.push("stopped");
      return Promise.resolve();
    },
  });
  const id = launch();
  await starting;
  cloud.data.transact(() => terminateServer(cloud, id));
  release();
  await lifecycle.settled();
  assert.equal(cloud.data.tables.server.get(id)?.state, "terminated");
  assert.deepEqual(calls, ["started", "stopped"]);
});

void test("a machine that cannot start is failed, with the reason", async () => {
  const { cloud, lifecycle, launch } = fixture({
    ...openNoCompute(),
    start: () => Promise.reject(new Error("no such shell")),
  });
  const id = launch();
  await lifecycle.settled();
  const server = cloud.data.tables.server.get(id);
  assert.equal(server?.state, "failed");
  assert.match(server.stateReason?.message ?? "", /no such shell/);
});

void test("a subnet runs out of addresses, and gets them back", async () => {
  const { cloud, lifecycle, launch } = fixture();
  const ids = Array.from({ length: 5 }, launch);
  assert.equal(reasonOf(launch), "no_free_address");
  assert.equal(cloud.data.tables.server.size, 5);
  await lifecycle.settled();
  cloud.data.transact(() => terminateServer(cloud, ids[2] ?? ""));
  await lifecycle.settled();
  launch();
});

void test("a token gives the same resources, and refuses other parameters", () => {
  const { cloud } = fixture();
  let made = 0;
  const use = (parameters: unknown): readonly string[] =>
    cloud.data.transact(() =>
      idempotent(cloud, { operation: "make", token: "t", parameters }, () => {
        made += 1;
        return [`made-${made}`];
      }),
    );
  assert.deepEqual(use({ a: 1, b: 2 }), ["made-1"]);
  assert.deepEqual(use({ b: 2, a: 1 }), ["made-1"]);
  assert.equal(
    reasonOf(() => use({ a: 2 })),
    "token_mismatch",
  );
  assert.equal(made, 1);
});
