/** The contract of a cloud driver, held by the OpenStack driver against devcloud's OpenStack. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { cloudConformance, runConformance } from "#cloud/conformance.ts";
import type { ConformanceResult } from "#cloud/conformance.ts";
import type { Cloud } from "#cloud/contract.ts";
import { type Devcloud, startDevcloud } from "#devcloud/start-devcloud.ts";
import { openOpenstackCloud } from "#drivers/openstack/openstack-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { OpenstackCredentials } from "#wire/openstack/keystone.ts";

const pageSize = 3;
const data = await mkdtemp(join(tmpdir(), "devcloud-openstack-"));
let devcloud: Devcloud;
let cloud: Cloud;

function open(credentials: OpenstackCredentials): Cloud {
  return openOpenstackCloud({
    authUrl: `${devcloud.endpoint}/identity`,
    credentials,
    project: { name: devcloud.accessKeyId, domain: { name: "Default" } },
    region: devcloud.region,
    pageSize,
    clock: systemClock,
    log: silentLog,
  });
}

before(async () => {
  devcloud = await startDevcloud({
    dialect: "openstack",
    dataDir: data,
    compute: "none",
    addressBase: "127.61.0.0/16",
  });
  const user = { name: devcloud.accessKeyId, domain: { name: "Default" } };
  cloud = open({ type: "password", user, password: devcloud.secretAccessKey });
});

after(async () => {
  await cloud.close();
  await devcloud.close();
  await rm(data, { recursive: true });
});

async function admin(method: string, path: string, body: unknown): Promise<void> {
  const answer = await fetch(`${devcloud.endpoint}/_devcloud/${path}`, {
    method,
    headers: { authorization: `Bearer ${devcloud.adminToken.reveal()}` },
    body: JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
}

test("the OpenStack driver keeps the contract against devcloud", { timeout: 300_000 }, async (t) => {
  const results: ConformanceResult[] = [];
  const report = await runConformance({
    cloud,
    ports: { clock: systemClock, random: systemRandom },
    scope: "conformance",
    limits: { waitMs: 30_000, pollMs: 50 },
    harness: {
      pageSize,
      badCredentials: async () => open({ type: "token", token: new Secret("not-a-token") }),
      throttle: async () => {
        await admin("PUT", "rate-limits", { "*": { perSecond: 0.001, burst: 1 } });
        return () => admin("PUT", "rate-limits", {});
      },
    },
    signal: t.signal,
    onResult: (result) => results.push(result),
  });
  for (const result of results) {
    const failure = result.result === "failed" ? result.error : undefined;
    await t.test(result.name, () => assert.equal(failure, undefined));
  }
  assert.equal(results.length, cloudConformance().length, "every case ran");
  assert.deepEqual(report.notRemoved, []);
});
