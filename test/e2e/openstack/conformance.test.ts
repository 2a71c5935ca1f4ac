/** The contract of a cloud driver against a real OpenStack: `npm run e2e:openstack`. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { cloudConformance, runConformance } from "#cloud/conformance.ts";
import type { ConformanceResult } from "#cloud/conformance.ts";
import { systemClock } from "#kernel/clock.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { openFromEnvironment } from "./cloud-from-environment.ts";

const pageSize = 3;
const cloud = openFromEnvironment({ pageSize });
after(() => cloud.close());

void test("the OpenStack driver keeps the contract", { timeout: 1_200_000 }, async (t) => {
  const results: ConformanceResult[] = [];
  const report = await runConformance({
    cloud,
    ports: { clock: systemClock, random: systemRandom },
    scope: `e2e-${systemRandom.hex(4)}`,
    limits: { waitMs: 300_000, pollMs: 500 },
    harness: {
      pageSize,
      badCredentials: async () =>
        openFromEnvironment({
          credentials: { type: "token", token: new Secret("not-a-token") },
        }),
    },
    signal: t.signal,
    onResult: (result) => results.push(result),
  });
  for (const result of results) {
    if (result.result === "not_applicable") {
      t.diagnostic(`not applicable: ${result.name} (${result.why})`);
      continue;
    }
    const failure = result.result === "failed" ? result.error : undefined;
    await t.test(result.name, () => assert.equal(failure, undefined));
  }
  assert.equal(results.length, cloudConformance().length, "every case ran");
  assert.deepEqual(report.notRemoved, []);
});
