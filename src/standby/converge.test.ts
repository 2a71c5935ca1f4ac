import assert from "node:assert/strict";
import { test } from "node:test";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { Resource } from "#model/resource.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { createCallLimiter } from "./call-limiter.ts";
import { converge } from "./converge.ts";
import type { ConvergenceReport } from "./converge.ts";
import { loadPairings } from "./pairings.ts";
import { planConvergence } from "./plan-convergence.ts";
import type { Translation } from "./translate.ts";
import { noMappings } from "./translate.ts";

const of = { environment: environmentId("shop"), scope: "main" };

async function arrange(options: Partial<Parameters<typeof createMemoryCloud>[0]> = {}) {
  const clock = createVirtualClock();
  const random = createSeededRandom(7);
  const cloud = createMemoryCloud({ clock, random, latencyMs: 100, readyMs: 3000, ...options });
  const store = await openSqliteStore({ path: ":memory:", clock });
  const translation: Translation = {
    facts: cloud.facts,
    source: shopCatalogue,
    target: memoryCatalogue,
    mappings: noMappings,
    sizing: "fit",
    nameSuffix: "",
  };
  const limiter = createCallLimiter(cloud.facts, clock);
  const bringTo = async (desired: Iterable<Resource>): Promise<ConvergenceReport> => {
    const pairings = await loadPairings(store, of);
    const plan = planConvergence({ desired, pairings, translation });
    const ports = { cloud, store, clock, random, log: silentLog, limiter };
    const target = { ...of, cloudScope: "shop" };
    return clock.drive(converge(plan, pairings, target, ports, new AbortController().signal));
  };
  return { cloud, store, clock, bringTo };
}

function countByKind(resources: Iterable<Resource>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of resources) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

test("a whole environment is made, and the second time nothing is called", async () => {
  const { cloud, bringTo, store } = await arrange();
  const shop = shopEnvironment({ servers: 30, volumeEvery: 3 });
  const report = await bringTo(shop);
  assert.deepEqual(report.failures, []);
  assert.equal(report.created, shop.length);
  assert.deepEqual(countByKind(cloud.inspect.resources()), countByKind(shop));
  const calls = cloud.inspect.calls;
  const again = await bringTo(shop);
  assert.equal(cloud.inspect.calls, calls);
  assert.equal(again.calls, 0);
  await store.close();
});

test("scaling down and away leaves nothing behind", async () => {
  const { cloud, bringTo, store } = await arrange();
  const shop = shopEnvironment({ servers: 30, volumeEvery: 3, publicEvery: 2 });
  await bringTo(shop);
  const fewer = shopEnvironment({ servers: 6, volumeEvery: 3, publicEvery: 2 });
  const down = await bringTo(fewer);
  assert.deepEqual(down.failures, []);
  assert.deepEqual(countByKind(cloud.inspect.resources()), countByKind(fewer));
  const away = await bringTo([]);
  assert.deepEqual(away.failures, []);
  assert.deepEqual(cloud.inspect.resources(), []);
  await store.close();
});
