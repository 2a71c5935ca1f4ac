import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment, recordCommand } from "#testing/record-commands.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import { assessGaps } from "./assess-gaps.ts";
import { createCallLimiter } from "./call-limiter.ts";
import { converge } from "./converge.ts";
import { countDrained } from "./count-drained.ts";
import { loadPairings } from "./pairings.ts";
import { planConvergence } from "./plan-convergence.ts";
import { remainingQueue } from "./remaining-queue.ts";
import { reserveResources } from "./select-reserve.ts";
import type { Translation } from "./translate.ts";
import { noMappings } from "./translate.ts";

const environment = environmentId("shop");
const { signal } = new AbortController();
const random = createSeededRandom(1);

test("the remaining queue shrinks by what the reserve has, and says which commands are drained", async () => {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, environment);
  const journal = await openJournal(store, { clock: systemClock });
  const shop = shopEnvironment({ servers: 15 });
  for (const resource of shop) await recordCommand(journal, environment, [{ type: "create", ...resource }]);
  const state = EnvironmentState.of(shop);
  const cloud = createMemoryCloud({ clock: systemClock, random });
  const limiter = createCallLimiter(cloud.facts, systemClock);
  const translation: Translation = {
    facts: cloud.facts,
    source: shopCatalogue,
    target: memoryCatalogue,
    mappings: noMappings,
    sizing: "fit",
    nameSuffix: "",
  };
  const remaining = async () => {
    const pairings = await loadPairings(store, { environment, scope: "main" });
    const figures = { callsPerSecond: 2, latencyMs: 100, window: 4 };
    return remainingQueue({ desired: state.resources(), pairings, translation }, figures);
  };
  const all = await remaining();
  assert.deepEqual([all.creates, all.estimatedSeconds], [shop.length, shop.length / 2]);
  assert.deepEqual(await countDrained(journal, environment, state, all.keys), {
    commands: shop.length,
    drained: 0,
  });

  const desired = reserveResources(state, {
    servers: { mode: "ratio", ratio: 0.2, minimumPerGroup: 1, groupBy: "tier" },
    onlyTags: {},
    smallerTypes: false,
    volumes: "with_servers",
  });
  const plan = planConvergence({ desired, pairings: new Map(), translation });
  const ports = { cloud, store, clock: systemClock, random, log: silentLog, limiter };
  await converge(plan, new Map(), { environment, scope: "main", cloudScope: "shop" }, ports, signal);
  const left = await remaining();
  assert.deepEqual(left.byKind, { server: { create: 12 } });
  assert.equal(left.estimatedSeconds, 6);
  const counted = await countDrained(journal, environment, state, left.keys);
  assert.deepEqual(counted, { commands: shop.length, drained: shop.length - 12 });
});

test("what a takeover would lose is told before it", () => {
  const cloud = createMemoryCloud({ clock: systemClock, random });
  const translation: Translation = {
    facts: { ...cloud.facts, kinds: { ...cloud.facts.kinds, keyPair: false } },
    source: shopCatalogue,
    target: { ...memoryCatalogue, images: memoryCatalogue.images.filter(({ name }) => name !== "web") },
    mappings: noMappings,
    sizing: "smallest",
    nameSuffix: "",
  };
  const gaps = assessGaps(shopEnvironment({ servers: 3, volumeEvery: 3 }), translation);
  assert.deepEqual(
    new Map(gaps.map(({ code, resource }) => [code, resource?.id])),
    new Map([
      ["data.not_captured", "vol-0"],
      ["image.unmapped", "i-0"],
      ["kind.unsupported", "deploy"],
    ]),
  );
  assert.equal(gaps.length, 3);
});
