import assert from "node:assert/strict";
import { test } from "node:test";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { Resource, ServerSpec } from "#model/resource.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { createCallLimiter } from "./call-limiter.ts";
import { converge } from "./converge.ts";
import type { ConvergenceReport } from "./converge.ts";
import { loadPairings, writePairing } from "./pairings.ts";
import { planConvergence } from "./plan-convergence.ts";
import { findLeftovers, removeLeftovers } from "./remove-leftovers.ts";
import type { Translation } from "./translate.ts";
import { noMappings } from "./translate.ts";

const of = { environment: environmentId("shop"), scope: "main" };

const never = new AbortController().signal;

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
  const bringTo = async (
    desired: Iterable<Resource>,
    signal = never,
    sizing: Translation["sizing"] = "fit",
  ): Promise<ConvergenceReport> => {
    const pairings = await loadPairings(store, of);
    const plan = planConvergence({ desired, pairings, translation: { ...translation, sizing } });
    const ports = { cloud, store, clock, random, log: silentLog, limiter };
    const target = { ...of, cloudScope: "shop" };
    return clock.drive(converge(plan, pairings, target, ports, signal));
  };
  return { cloud, store, clock, limiter, bringTo };
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
  // In the right order nothing is refused: a call each, and none for links that end with their server.
  assert.equal(down.calls, 24 + 8);
  assert.deepEqual(countByKind(cloud.inspect.resources()), countByKind(fewer));
  const away = await bringTo([]);
  assert.deepEqual(away.failures, []);
  assert.deepEqual(cloud.inspect.resources(), []);
  await store.close();
});

test("a server that fails is made once more; one that fails again is named, and the rest goes on", async () => {
  const shop = shopEnvironment({ servers: 4, volumeEvery: 1 });
  const once = await arrange();
  once.cloud.inspect.failNextServer("No valid host was found");
  const report = await once.bringTo(shop);
  assert.deepEqual(report.failures, []);
  assert.deepEqual(countByKind(once.cloud.inspect.resources()), countByKind(shop));
  assert.equal(once.cloud.inspect.created, shop.length + 1);

  const twice = await arrange();
  for (let at = 0; at < 5; at += 1) twice.cloud.inspect.failNextServer("No valid host was found");
  const partial = await twice.bringTo(shop);
  const [failure] = partial.failures;
  assert.deepEqual([failure?.kind, failure?.message], ["server", "No valid host was found"]);
  assert.equal(partial.failed, 1);
  assert.deepEqual(
    partial.skips.map(({ kind }) => kind),
    ["volumeAttachment"],
  );
  assert.deepEqual(
    partial.gaps.map(({ code }) => code),
    ["standby.refused"],
  );
  assert.deepEqual((await twice.bringTo(shop)).failures, []);
  assert.deepEqual(countByKind(twice.cloud.inspect.resources()), countByKind(shop));
});

test("one kind that is refused for good leaves the rest, and is tried again next time", async () => {
  const { cloud, bringTo } = await arrange({ quotas: { server: 3 } });
  const shop = shopEnvironment({ servers: 5, volumeEvery: 1 });
  const report = await bringTo(shop);
  assert.deepEqual(new Set(report.failures.map(({ code }) => code)), new Set(["cloud.quota"]));
  assert.deepEqual([report.failed, report.skipped], [2, 2]);
  assert.equal(countByKind(cloud.inspect.resources())["server"], 3);
});

test("an original that its copy outgrew while it was in a reserve of smaller types grows at takeover", async () => {
  const { cloud, bringTo, store } = await arrange();
  const shop = shopEnvironment({ servers: 1 });
  await bringTo(shop, never, "smallest");
  const pairings = [...(await loadPairings(store, of)).values()];
  // The roles were exchanged: what stands here is what the other side's was translated from.
  await store.commit(pairings.map((one) => writePairing(store, of, { ...one, original: true }, 0)));
  const changed = (set: Partial<ServerSpec>): Resource[] =>
    shop.map((one) => (one.kind === "server" ? { ...one, spec: { ...one.spec, ...set } } : one));
  const typeHere = (): (string | undefined)[] =>
    [...cloud.inspect.resources()].flatMap((one) => (one.kind === "server" ? [one.spec.type] : []));
  const smallest = typeHere();
  // Its type and its power change while the reserve is of smaller types: the type comes out as what is there.
  await bringTo(changed({ type: "m5.xlarge", power: "stopped" }), never, "smallest");
  assert.deepEqual(typeHere(), smallest);
  await bringTo(changed({ type: "m5.xlarge" }));
  assert.notDeepEqual(typeHere(), smallest);
  await store.close();
});

test("a counterpart that somebody deleted is made anew when it is next changed", async () => {
  const { cloud, bringTo, store, clock: driver } = await arrange();
  const shop = shopEnvironment({ servers: 2 });
  await bringTo(shop);
  const [pairing] = [...(await loadPairings(store, of)).values()].filter(({ kind }) => kind === "server");
  assert.ok(pairing?.standbyId !== null && pairing !== undefined);
  await driver.drive(cloud.delete("server", pairing.standbyId, never));
  const larger = shop.map((one): Resource =>
    one.kind === "server" && one.id === pairing.activeId
      ? { ...one, spec: { ...one.spec, type: "m5.xlarge" } }
      : one,
  );
  const report = await bringTo(larger);
  assert.deepEqual(report.failures, []);
  assert.deepEqual(countByKind(cloud.inspect.resources()), countByKind(shop));
});

test("a caller that gives up stops at once, and the next one finishes", async () => {
  const { cloud, bringTo, clock, store } = await arrange();
  const shop = shopEnvironment({ servers: 10 });
  const stop = new AbortController();
  const servers = (): number => countByKind(cloud.inspect.resources())["server"] ?? 0;
  const giveUp = async (): Promise<void> => {
    // Servers are made by then, and nobody has been told.
    while (servers() === 0) await clock.sleep(10);
    stop.abort(new Error("enough"));
  };
  await Promise.all([assert.rejects(bringTo(shop, stop.signal), /enough/), giveUp()]);
  assert.ok(servers() > 0);
  const rows = [...(await loadPairings(store, of)).values()];
  assert.ok(rows.some(({ state }) => state === "creating"));
  assert.deepEqual((await bringTo(shop)).failures, []);
  assert.deepEqual(countByKind(cloud.inspect.resources()), countByKind(shop));
  assert.equal(cloud.inspect.created, shop.length);
});

test("what bears our scope and stands for nothing is found and removed", async () => {
  const { cloud, bringTo, store, clock, limiter } = await arrange();
  await bringTo(shopEnvironment({ servers: 2 }));
  const lost = { kind: "volume", spec: { sizeGiB: 1 }, tags: {}, token: "lost", mayExist: false } as const;
  await clock.drive(cloud.create({ ...lost, scope: "shop" }, never));
  await clock.drive(cloud.create({ ...lost, token: "other", scope: "shop/drill-1" }, never));
  const pairings = await loadPairings(store, of);
  const found = await clock.drive(findLeftovers(cloud, limiter, "shop", pairings, never));
  assert.deepEqual(
    found.map(({ kind }) => kind),
    ["volume"],
  );
  assert.deepEqual(await clock.drive(removeLeftovers(cloud, limiter, found, never)), []);
  assert.deepEqual(await clock.drive(findLeftovers(cloud, limiter, "shop", pairings, never)), []);
});
