/** The EC2 driver against devcloud: the whole conformance suite, and what is EC2's own. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Cloud } from "#cloud/contract.ts";
import { openEc2Cloud } from "#drivers/ec2/ec2-cloud.ts";
import type { Ec2CloudOptions } from "#drivers/ec2/ec2-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { conformanceTests } from "#testing/conformance-tests.ts";
import { startDevcloudProcess } from "./devcloud-process.ts";

const pageSize = 5;
const devcloud = await startDevcloudProcess();
after(() => devcloud.stop());

function open(more: Partial<Ec2CloudOptions> = {}): Cloud {
  return openEc2Cloud({
    endpoint: devcloud.endpoint,
    region: devcloud.region,
    credentials: { accessKeyId: devcloud.accessKeyId, secretAccessKey: devcloud.secretAccessKey },
    clock: systemClock,
    log: silentLog,
    pageSize,
    imageIds: ["ami-0a1b2c3d4e5f60001"],
    ...more,
  });
}

await conformanceTests({
  name: "ec2",
  cloud: open(),
  harness: {
    pageSize,
    badCredentials: async () =>
      open({ credentials: { accessKeyId: devcloud.accessKeyId, secretAccessKey: new Secret("wrong") } }),
    throttle: async () => {
      await devcloud.admin("PUT", "rate-limits", { "*": { perSecond: 1, burst: 1 } });
      return async () => {
        await devcloud.admin("PUT", "rate-limits", {});
      };
    },
  },
});

const signal = new AbortController().signal;

async function withCloud(work: (cloud: Cloud, scope: string) => Promise<void>): Promise<void> {
  const cloud = open();
  try {
    await work(cloud, `e2e-${systemRandom.hex(4)}`);
  } finally {
    await devcloud.admin("DELETE", "faults");
    await devcloud.admin("POST", "reset");
    await cloud.close();
  }
}

const networkRequest = (scope: string) =>
  ({
    kind: "network",
    spec: { cidr: "10.7.0.0/16", internet: true },
    tags: { Name: "shop" },
    token: systemRandom.uuid(),
    scope,
    mayExist: false,
  }) as const;

/** A network takes four changes: each in turn is applied without its answer arriving. */
for (const operation of ["CreateVpc", "CreateInternetGateway", "AttachInternetGateway", "CreateRoute"]) {
  void test(`ec2: a network whose ${operation} was not answered is finished, not doubled`, () =>
    withCloud(async (cloud, scope) => {
      await devcloud.admin("POST", "faults", { operation, effect: "fail-after", answer: "cut", count: 1 });
      const request = networkRequest(scope);
      await assert.rejects(
        cloud.create(request, signal),
        (error) => isOperational(error) && error.outcome === "unknown",
      );
      const made = await cloud.create({ ...request, mayExist: true }, signal);
      const seen = await cloud.get("network", made.resource.id, signal);
      assert.equal(seen?.resource.spec.internet, true);
      const state = (await devcloud.admin("GET", "state")) as { tables: Record<string, object[]> };
      const marked = (table: string): number =>
        (state.tables[table] ?? []).filter((row) => JSON.stringify(row).includes(request.token)).length;
      assert.equal(marked("networks") + marked("network"), 1, "one network");
      assert.equal(marked("gateways") + marked("gateway"), 1, "one gateway");
    }));
}

void test("ec2: a server error after a change leaves its outcome open, after a read it does not", () =>
  withCloud(async (cloud, scope) => {
    await devcloud.admin("POST", "faults", { operation: "CreateVpc", effect: "refuse", count: 1 });
    await assert.rejects(
      cloud.create(networkRequest(scope), signal),
      (error) => isOperational(error, "cloud.failing") && error.outcome === "unknown",
    );
    await devcloud.admin("POST", "faults", { operation: "DescribeVpcs", effect: "refuse", count: 1 });
    await assert.rejects(
      cloud.get("network", "vpc-00000000000000000" as never, signal),
      (error) => isOperational(error, "cloud.failing") && error.outcome === "not_applied",
    );
  }));

void test("ec2: quota and capacity are told apart", () =>
  withCloud(async (cloud, scope) => {
    for (const [code, wanted] of [
      ["VpcLimitExceeded", "cloud.quota"],
      ["InsufficientInstanceCapacity", "cloud.refused"],
      ["UnauthorizedOperation", "cloud.credentials"],
      ["DependencyViolation", "cloud.conflict"],
    ] as const) {
      const fault = { operation: "CreateVpc", effect: "refuse", status: 400, code, count: 1 };
      await devcloud.admin("POST", "faults", fault);
      await assert.rejects(
        cloud.create(networkRequest(scope), signal),
        (error) =>
          isOperational(error, wanted) && error.remoteCode === code && error.outcome === "not_applied",
      );
    }
  }));

void test("ec2: an endpoint that nobody serves is unreachable, and nothing was sent", async () => {
  const cloud = open({ endpoint: "http://127.0.0.1:9" });
  await assert.rejects(
    cloud.create(networkRequest("none"), signal),
    (error) => isOperational(error, "cloud.unreachable") && error.outcome === "not_applied",
  );
  await cloud.close();
});

void test("ec2: an interrupted resize is finished, and the server runs again", () =>
  withCloud(async (cloud, scope) => {
    const common = { tags: {}, scope, mayExist: false } as const;
    const network = await cloud.create(networkRequest(scope), signal);
    const subnet = await cloud.create(
      {
        ...common,
        kind: "subnet",
        token: systemRandom.uuid(),
        spec: { networkId: network.resource.id, cidr: "10.7.1.0/24", publicAddresses: false },
      },
      signal,
    );
    const { types, images } = await cloud.catalogue(signal);
    const image = images[0];
    const [small, other] = types.filter(({ architecture }) => architecture === image?.architecture);
    assert.ok(image && small && other);
    const server = await cloud.create(
      {
        ...common,
        kind: "server",
        token: systemRandom.uuid(),
        spec: {
          imageId: image.id,
          type: small.name,
          subnetId: subnet.resource.id,
          groupIds: [],
          publicAddress: false,
          power: "running",
          blockDevices: [],
        },
      },
      signal,
    );
    const { id } = server.resource;
    const fault = { operation: "ModifyInstanceAttribute", effect: "refuse", count: 1 };
    await devcloud.admin("POST", "faults", fault);
    await assert.rejects(cloud.update("server", id, { type: other.name }, signal));
    const stopped = await cloud.get("server", id, signal);
    assert.equal(stopped?.status, "stopped", "interrupted half-way");
    await cloud.update("server", id, { type: other.name }, signal);
    const after = await cloud.get("server", id, signal);
    assert.equal(after?.status, "ready");
    assert.equal(after?.resource.spec.type, other.name);
    assert.deepEqual(after?.resource.tags, {}, "its marks are no one's tags");
  }));
