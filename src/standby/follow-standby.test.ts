import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { openJournalFollower } from "#environment/follow-journal.ts";
import { listGaps } from "#environment/gaps.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { ReservePolicy } from "#model/policy.ts";
import type { Resource } from "#model/resource.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment, recordCommand } from "#testing/record-commands.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import { createCallLimiter } from "./call-limiter.ts";
import { openStandbyFollower } from "./follow-standby.ts";
import { noMappings } from "./translate.ts";

const environment = environmentId("shop");
const policy: ReservePolicy = {
  servers: { mode: "ratio", ratio: 0.2, minimumPerGroup: 1, groupBy: "tier" },
  onlyTags: {},
  smallerTypes: false,
  volumes: "with_servers",
};

async function arrange() {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, environment);
  const journal = await openJournal(store, { clock: systemClock });
  const random = createSeededRandom(3);
  const cloud = createMemoryCloud({ clock: systemClock, random });
  const ports = { store, clock: systemClock, log: silentLog };
  const follower = await openJournalFollower({ ...ports, environment, journal, cloud: () => undefined });
  const open = () =>
    openStandbyFollower({
      ...ports,
      environment,
      journal,
      follower,
      cloud,
      random,
      policy,
      limiter: createCallLimiter(cloud.facts, systemClock),
      guard: () => Promise.resolve([]),
      translation: () =>
        Promise.resolve({
          facts: cloud.facts,
          source: shopCatalogue,
          target: memoryCatalogue,
          mappings: noMappings,
          sizing: "fit",
          nameSuffix: "",
        }),
    });
  const record = (resources: readonly Resource[]) =>
    recordCommand(
      journal,
      environment,
      resources.map((resource) => ({ type: "create" as const, ...resource })),
    );
  const servers = () => cloud.inspect.resources().filter(({ kind }) => kind === "server");
  return { store, cloud, follower, open, record, servers };
}

const { signal } = new AbortController();

test("the reserve grows with the environment, and its position outlives the process", async () => {
  const { cloud, follower, open, record, servers } = await arrange();
  await using _follower = follower;
  const first = shopEnvironment({ servers: 15 });
  const at = await record(first);
  {
    await using standby = await open();
    await standby.waitFor(at, signal);
    assert.equal(servers().length, 3);
    const held = new Set(servers().map(({ id }) => id));
    const next = await record(
      shopEnvironment({ servers: 30 }).filter((one) => !first.some(({ id }) => id === one.id)),
    );
    await standby.waitFor(next, signal);
    assert.equal(servers().length, 6);
    for (const id of held)
      assert.ok(
        servers().some((one) => one.id === id),
        "a reserve server was swapped",
      );
    const lag = await standby.lag();
    assert.deepEqual([lag.positions, lag.alarm], [0, null]);
  }
  const { calls } = cloud.inspect;
  await using standby = await open();
  await follower.waitFor(at, signal);
  assert.equal(standby.position, 2);
  assert.equal(cloud.inspect.calls, calls);
});

test("paused, it leaves the site alone; resumed, it catches up", async () => {
  const { cloud, follower, open, record, servers } = await arrange();
  await using _follower = follower;
  await using standby = await open();
  await standby.pause();
  const at = await record(shopEnvironment({ servers: 15 }));
  await follower.waitFor(at, signal);
  assert.equal((await standby.lag()).positions, 1);
  assert.equal(cloud.inspect.calls, 0);
  standby.resume();
  await standby.waitFor(at, signal);
  assert.equal(servers().length, 3);
});

test("what the standby cannot hold is a gap until it can", async () => {
  const { store, follower, open, record } = await arrange();
  await using _follower = follower;
  await using standby = await open();
  const shop = shopEnvironment({ servers: 3 });
  const odd: Resource[] = shop.map((one) =>
    one.kind === "server" && one.id === "i-1" ? { ...one, spec: { ...one.spec, imageId: "ami-odd" } } : one,
  );
  await standby.waitFor(await record(odd), signal);
  const before = await listGaps(store, environment);
  assert.deepEqual(
    before.map(({ code, resource }) => [code, resource?.id]),
    [["image.unmapped", "i-1"]],
  );
  await standby.waitFor(await record(shop), signal);
  assert.deepEqual(await listGaps(store, environment), []);
});
