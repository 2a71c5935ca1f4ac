import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { siteId } from "#kernel/ids.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { readCatalogue, refreshCatalogue } from "./catalogue.ts";

test("what a site offers is known when the site is gone", async () => {
  const store = await openSqliteStore({ path: ":memory:" });
  const site = siteId("spare");
  assert.equal(await readCatalogue(store, site), undefined);
  const cloud = createMemoryCloud({ clock: systemClock, random: createSeededRandom(1) });
  const { signal } = new AbortController();
  const clock = { ...systemClock, now: () => 77 };
  await refreshCatalogue(store, site, cloud, clock, signal);
  await cloud.close();
  await assert.rejects(refreshCatalogue(store, site, cloud, clock, signal));
  assert.deepEqual(await readCatalogue(store, site), { catalogue: memoryCatalogue, at: 77 });
});
