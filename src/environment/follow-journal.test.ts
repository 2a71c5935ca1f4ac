import assert from "node:assert/strict";
import { test } from "node:test";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import type { Cloud } from "#cloud/contract.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId, resourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { Resource } from "#model/resource.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment, recordCommand } from "#testing/record-commands.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopEnvironment } from "#testing/shop-environment.ts";
import type { FollowJournalOptions } from "./follow-journal.ts";
import { openJournalFollower } from "./follow-journal.ts";
import { listGaps } from "./gaps.ts";
import { loadState } from "./load-state.ts";

const environment = environmentId("shop");
const { signal } = new AbortController();

async function arrange(wrap: (store: Store) => Store = (store) => store) {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, environment);
  const journal = await openJournal(store, { clock: systemClock });
  const options: FollowJournalOptions = {
    environment,
    store: wrap(store),
    journal,
    clock: systemClock,
    log: silentLog,
    cloud: () => undefined,
  };
  return { store, journal, options };
}

const creates = (resources: readonly Resource[]) =>
  resources.map((resource) => ({ type: "create" as const, ...resource }));

test("what is folded is on disk, and a second follower goes on from there", async () => {
  const { store, journal, options } = await arrange();
  const shop = shopEnvironment({ servers: 7, volumeEvery: 2 });
  for (const change of creates(shop)) await recordCommand(journal, environment, [change]);
  {
    await using follower = await openJournalFollower(options);
    await follower.waitFor(await journal.head(environment), signal);
    assert.equal(follower.state.size, shop.length);
  }
  const at = await recordCommand(journal, environment, [
    { type: "delete", kind: "server", id: resourceId("i-0") },
    { type: "tag", kind: "server", id: resourceId("i-1"), set: { owner: "ops" }, remove: ["tier"] },
  ]);
  await using follower = await openJournalFollower(options);
  await follower.waitFor(at, signal);
  const loaded = await loadState(store, environment);
  assert.equal(loaded.position, at);
  // The server went with its attachment; the volume does not end with it.
  assert.equal(loaded.state.size, shop.length - 2);
  assert.deepEqual(loaded.state.get("server", "i-1")?.tags, { Name: "app-1", owner: "ops" });
  const byId = (all: Iterable<Resource>) => new Map([...all].map((one) => [`${one.kind}:${one.id}`, one]));
  assert.deepEqual(byId(loaded.state.resources()), byId(follower.state.resources()));
});

test("another name of a resource is remembered over a restart", async () => {
  const { journal, options } = await arrange();
  const [network] = shopEnvironment({ servers: 0 });
  assert.ok(network?.kind === "network");
  await recordCommand(journal, environment, [
    { type: "create", ...network, aliases: [resourceId("vpc-alias")] },
  ]);
  {
    await using follower = await openJournalFollower(options);
    await follower.waitFor(1, signal);
  }
  const at = await recordCommand(journal, environment, [
    { type: "update", kind: "network", id: resourceId("vpc-alias"), set: { internet: false } },
  ]);
  await using follower = await openJournalFollower(options);
  await follower.waitFor(at, signal);
  const changed = follower.state.get("network", network.id);
  assert.equal(changed?.kind === "network" && changed.spec.internet, false);
});

test("what no command made is read from the active site, and is a gap until then", async () => {
  const { store, journal, options } = await arrange();
  const active = createMemoryCloud({ clock: systemClock, random: createSeededRandom(1) });
  const made = await active.create(
    {
      kind: "network",
      spec: { cidr: "10.9.0.0/16", internet: true },
      tags: { Name: "default" },
      token: "t",
      scope: "other",
      mayExist: false,
    },
    signal,
  );
  let alive: Cloud | undefined;
  await using follower = await openJournalFollower({ ...options, cloud: () => alive });
  const subnet = {
    type: "create" as const,
    kind: "subnet" as const,
    id: resourceId("subnet-1"),
    spec: { networkId: made.resource.id, cidr: "10.9.1.0/24", publicAddresses: false },
    tags: {},
  };
  const at = await recordCommand(journal, environment, [subnet]);
  await follower.waitFor(at, signal);
  const [gap] = await listGaps(store, environment);
  assert.equal(gap?.code, "reference.missing");
  alive = active;
  const { version } = follower;
  while (!follower.state.has("network", made.resource.id)) await follower.changed(version, signal);
  assert.deepEqual(await listGaps(store, environment), []);
  const loaded = await loadState(store, environment);
  assert.deepEqual(loaded.state.get("network", made.resource.id)?.tags, { Name: "default" });
});

test("a commit that fails leaves nothing half done and is made up for", async () => {
  let failures = 2;
  const { store, journal, options } = await arrange((inner) => ({
    ...inner,
    db: inner.db,
    commit: (statements) => {
      if (failures === 0) return inner.commit(statements);
      failures -= 1;
      return Promise.reject(new OperationalError("store.full", "the disk is full"));
    },
  }));
  const shop = shopEnvironment({ servers: 2 });
  await recordCommand(journal, environment, creates(shop));
  const at = await recordCommand(journal, environment, [
    { type: "delete", kind: "server", id: resourceId("i-1") },
  ]);
  await using follower = await openJournalFollower({
    ...options,
    clock: { ...systemClock, sleep: () => new Promise((resolve) => setImmediate(resolve)) },
  });
  await follower.waitFor(at, signal);
  assert.equal(failures, 0);
  const loaded = await loadState(store, environment);
  assert.equal(loaded.state.size, shop.length - 1);
});
