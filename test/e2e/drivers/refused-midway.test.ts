/**
 * A create takes several calls of the cloud. Each of them in turn is throttled, and the create is repeated as the contract says:
 * `mayExist` stays false only after an error that says that nothing was applied. In the end there is one resource, not two.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Cloud, collect, type CreateRequest } from "#cloud/contract.ts";
import { type Devcloud, type DialectName, startDevcloud } from "#devcloud/start-devcloud.ts";
import { openEc2Cloud } from "#drivers/ec2/ec2-cloud.ts";
import { openOpenstackCloud } from "#drivers/openstack/openstack-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import type { ResourceKind, ResourceSpecs } from "#model/resource.ts";

/** No create takes more calls than this; reaching it means that a create never gets through. */
const most = 40;

const opened: Readonly<Record<DialectName, (devcloud: Devcloud) => Cloud>> = {
  ec2: ({ endpoint, region, accessKeyId, secretAccessKey }) =>
    openEc2Cloud({
      endpoint,
      region,
      credentials: { accessKeyId, secretAccessKey },
      clock: systemClock,
      log: silentLog,
      imageIds: ["ami-0a1b2c3d4e5f60001"],
    }),
  openstack: ({ endpoint, region, accessKeyId, secretAccessKey }) =>
    openOpenstackCloud({
      authUrl: `${endpoint}/identity`,
      credentials: {
        type: "password",
        user: { name: accessKeyId, domain: { name: "Default" } },
        password: secretAccessKey,
      },
      project: { name: accessKeyId, domain: { name: "Default" } },
      region,
      clock: systemClock,
      log: silentLog,
    }),
};

async function admin<T>(devcloud: Devcloud, method: string, path: string, body?: object): Promise<T> {
  const answer = await fetch(`${devcloud.endpoint}/_devcloud/${path}`, {
    method,
    headers: { authorization: `Bearer ${devcloud.adminToken.reveal()}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return (await answer.json()) as T;
}

const throttling = {
  ec2: { status: 503, code: "RequestLimitExceeded" },
  openstack: { status: 429, code: "OverLimit" },
} as const;

/** Their creates take more than one call in either dialect. */
const several: ReadonlySet<ResourceKind> = new Set(["network", "server"]);

const signal = new AbortController().signal;

async function createCarefully<K extends ResourceKind>(
  cloud: Cloud,
  request: CreateRequest<K>,
): Promise<ResourceId> {
  let mayExist = false;
  for (;;) {
    try {
      return (await cloud.create({ ...request, mayExist }, signal)).resource.id;
    } catch (error) {
      assert.ok(isOperational(error, "cloud.throttled"), String(error));
      mayExist ||= error.outcome !== "not_applied";
    }
  }
}

for (const dialect of ["ec2", "openstack"] as const) {
  test(`${dialect}: a create that is throttled at any of its calls makes one resource`, async (t) => {
    const dataDir = await mkdtemp(join(tmpdir(), "understudy-midway-"));
    const devcloud = await startDevcloud({ dialect, dataDir, compute: "none" });
    const cloud = opened[dialect](devcloud);
    const request = <K extends ResourceKind>(kind: K, spec: ResourceSpecs[K]): CreateRequest<K> => ({
      kind,
      spec,
      tags: { Name: "shop", tier: "web" },
      token: systemRandom.hex(16),
      scope: `midway-${systemRandom.hex(4)}`,
      mayExist: false,
    });
    try {
      const catalogue = await cloud.catalogue(signal);
      const { id: networkId } = (
        await cloud.create(request("network", { cidr: "10.9.0.0/16", internet: true }), signal)
      ).resource;
      let third = 0;
      const nextCidr = (): string => `10.9.${(third += 1)}.0/24`;
      const subnet = (): ResourceSpecs["subnet"] => ({
        networkId,
        cidr: nextCidr(),
        publicAddresses: true,
      });
      const { id: subnetId } = (await cloud.create(request("subnet", subnet()), signal)).resource;
      const server = (): ResourceSpecs["server"] => ({
        imageId: catalogue.images[0]?.id ?? "",
        type: catalogue.types[0]?.name ?? "",
        subnetId,
        groupIds: [],
        publicAddress: false,
        power: "stopped",
        blockDevices: [],
      });
      const specs: { readonly [K in ResourceKind]?: () => ResourceSpecs[K] } = {
        network: () => ({ cidr: "10.8.0.0/16", internet: true }),
        subnet,
        securityGroup: () => ({ name: `web-${systemRandom.hex(4)}`, description: "web", networkId }),
        volume: () => ({ sizeGiB: 1 }),
        address: () => ({}),
        server,
      };
      for (const kind of Object.keys(specs) as (keyof typeof specs)[]) {
        let calls = 0;
        for (let hit = true; hit; calls += 1) {
          assert.ok(calls < most, `${kind}: every call was throttled`);
          const wanted = request(kind, (specs[kind] as () => ResourceSpecs[typeof kind])());
          await admin(devcloud, "POST", "faults", {
            effect: "refuse",
            ...throttling[dialect],
            skip: calls,
            count: 1,
          });
          const id = await createCarefully(cloud, wanted);
          const [fault] = await admin<{ hits: number }[]>(devcloud, "GET", "faults");
          await admin(devcloud, "DELETE", "faults");
          hit = fault?.hits === 1;
          const seen = await collect(cloud.list(kind, { scope: wanted.scope }, signal));
          assert.deepEqual(
            seen.map(({ resource }) => resource.id),
            [id],
            `${kind}, throttled at call ${calls + 1}`,
          );
          await cloud.delete(kind, id, signal);
        }
        const throttled = calls - 1;
        t.diagnostic(`${kind}: ${throttled} calls`);
        assert.ok(
          throttled >= (several.has(kind) ? 2 : 1),
          `${kind}: only ${throttled} calls were throttled`,
        );
      }
    } finally {
      await cloud.close();
      await devcloud.close();
      await rm(dataDir, { recursive: true });
    }
  });
}
