import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { Cloud } from "#cloud/contract.ts";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import type { Clock } from "#kernel/clock.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { Change } from "#model/change.ts";
import { EnvironmentState, resourceKey } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import { reduceChanges } from "#journal/reduce.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createFaultyCloud, seededFaults } from "#testing/faulty-cloud.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue, shopEnvironment } from "#testing/shop-environment.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { createCallLimiter } from "./call-limiter.ts";
import type { ConvergenceReport } from "./converge.ts";
import { converge } from "./converge.ts";
import { mapReferences } from "./map-references.ts";
import type { Pairings } from "./pairings.ts";
import { loadPairings } from "./pairings.ts";
import { planConvergence } from "./plan-convergence.ts";
import type { Translation } from "./translate.ts";
import { noMappings } from "./translate.ts";

const of = { environment: environmentId("shop"), scope: "main" };
const { signal } = new AbortController();

interface Bench {
  readonly clock: Clock & { drive<T>(work: Promise<T>): Promise<T> };
  readonly cloud: ReturnType<typeof createMemoryCloud>;
  readonly store: Store;
  readonly translation: Translation;
}

async function arrange(seed: number): Promise<Bench> {
  const clock = createVirtualClock();
  const cloud = createMemoryCloud({ clock, random: createSeededRandom(seed), latencyMs: 20, readyMs: 500 });
  const store = await openSqliteStore({ path: ":memory:", clock });
  const translation: Translation = {
    facts: { ...cloud.facts, publicAddressOnCreate: false },
    source: shopCatalogue,
    target: memoryCatalogue,
    mappings: noMappings,
    sizing: "fit",
    nameSuffix: "",
  };
  return { clock, cloud, store, translation };
}

/** No two processes draw the same tokens. */
let tokens = 0;

async function bringTo(
  bench: Bench,
  desired: Iterable<Resource>,
  options: { readonly cloud?: Cloud; readonly store?: Store } = {},
): Promise<ConvergenceReport> {
  const { clock, translation, store } = bench;
  const pairings = await loadPairings(store, of);
  const plan = planConvergence({ desired, pairings, translation });
  const ports = {
    cloud: options.cloud ?? bench.cloud,
    store: options.store ?? store,
    clock,
    random: createSeededRandom((tokens += 1)),
    log: silentLog,
    limiter: createCallLimiter(bench.cloud.facts, clock),
  };
  return clock.drive(converge(plan, pairings, { ...of, cloudScope: "shop" }, ports, signal));
}

/** The target as a picture that is the same whatever ids the cloud gave. */
function picture(bench: Bench, pairings: Pairings): Map<string, unknown> {
  const active = new Map<string, string>();
  for (const [key, pairing] of pairings) {
    if (pairing.standbyId !== null) active.set(resourceKey(pairing.kind, pairing.standbyId), key);
  }
  const drawn = new Map<string, unknown>();
  for (const resource of bench.cloud.inspect.resources()) {
    const key = active.get(resourceKey(resource.kind, resource.id));
    assert.ok(key !== undefined, `${resource.kind} ${resource.id} in the target stands for nothing`);
    const spec: Record<string, unknown> = {
      ...mapReferences(resource.kind, resource.spec, (kind, id) => {
        const end = active.get(resourceKey(kind, id));
        assert.ok(end !== undefined, `${key} refers to ${kind} ${id}, which stands for nothing`);
        return end as ResourceId;
      }),
    };
    delete spec["publicIp"];
    assert.ok(!drawn.has(key), `${key} exists twice`);
    drawn.set(key, { spec, tags: resource.tags });
  }
  return new Map([...drawn].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** Changes that the active side's cloud would have accepted, one after the other. */
const steps = fc.array(fc.record({ what: fc.nat(6), which: fc.nat(99), value: fc.nat(9) }), {
  minLength: 1,
  maxLength: 25,
});

function changesOf(state: EnvironmentState, all: { what: number; which: number; value: number }[]): Change[] {
  const changes: Change[] = [];
  for (const [at, { what, which, value }] of all.entries()) {
    const servers = [...state.resources()].filter((one) => one.kind === "server");
    const server = servers[which % Math.max(1, servers.length)];
    const change = oneChange(state, at, what, value, server);
    if (change === undefined) continue;
    state.apply(change);
    changes.push(change);
  }
  return changes;
}

function oneChange(
  state: EnvironmentState,
  at: number,
  what: number,
  value: number,
  server: Resource | undefined,
): Change | undefined {
  if (server?.kind !== "server") return undefined;
  const { kind, id } = server;
  switch (what) {
    case 0:
      return { type: "create", ...server, id: `i-new-${at}` as ResourceId, tags: { Name: `new-${value}` } };
    case 1:
      return { type: "delete", kind, id };
    case 2:
      return { type: "update", kind, id, set: { type: value % 2 === 0 ? "m5.xlarge" : "t3.medium" } };
    case 3:
      return { type: "tag", kind, id, set: { owner: String(value) }, remove: ["tier"] };
    case 4:
      return {
        type: "create",
        kind: "securityGroup",
        id: `sg-new-${at}` as ResourceId,
        spec: { networkId: "vpc-1" as ResourceId, name: `extra-${at}`, description: "" },
        tags: {},
      };
    case 5: {
      const groups = [...state.resources()].filter((one) => one.kind === "securityGroup");
      const group = groups[value % Math.max(1, groups.length)];
      return group && { type: "update", kind, id, set: { groupIds: [group.id] } };
    }
    default: {
      const used = new Set<string>();
      for (const one of state.resources()) for (const end of referencesOf(one)) used.add(end.id);
      const free = [...state.resources()].find((one) => one.kind === "securityGroup" && !used.has(one.id));
      return free && { type: "delete", kind: "securityGroup", id: free.id };
    }
  }
}

const size = { servers: 5, volumeEvery: 2, publicEvery: 2 };

test("draining the reduced queue leaves what draining command by command leaves", async () => {
  await fc.assert(
    fc.asyncProperty(steps, fc.integer(), async (chosen, seed) => {
      const shop = shopEnvironment(size);
      const changes = changesOf(EnvironmentState.of(shop), chosen);
      const [single, reduced] = [await arrange(seed), await arrange(seed + 1)];
      for (const bench of [single, reduced]) await bringTo(bench, shop);
      const state = EnvironmentState.of(shop);
      for (const change of changes) {
        state.apply(change);
        assert.deepEqual((await bringTo(single, state.resources())).failures, []);
      }
      const after = EnvironmentState.of(shop);
      const positioned = changes.map((change, at) => ({ position: at + 1, change }));
      for (const { change } of reduceChanges(positioned, EnvironmentState.of(shop)).changes) {
        after.apply(change);
      }
      assert.deepEqual((await bringTo(reduced, after.resources())).failures, []);
      const [one, other] = [
        picture(single, await loadPairings(single.store, of)),
        picture(reduced, await loadPairings(reduced.store, of)),
      ];
      assert.deepEqual(other, one);
      const { calls } = reduced.cloud.inspect;
      await bringTo(reduced, after.resources());
      assert.equal(reduced.cloud.inspect.calls, calls, "a second run has nothing to do");
    }),
    { numRuns: 40 },
  );
});

class Crash extends Error {}

/** Dies at its nth commit: before it is durable, or after it but before anyone is told. */
function crashingStore(store: Store, at: number, durable: boolean): Store {
  let commits = 0;
  return {
    ...store,
    async commit(statements) {
      commits += 1;
      if (commits > at) throw new Crash();
      if (commits < at) return store.commit(statements);
      if (durable) await store.commit(statements);
      throw new Crash();
    },
  };
}

test("killed at any commit and started again, each resource exists exactly once", async () => {
  const before = shopEnvironment(size);
  const after = EnvironmentState.of(shopEnvironment({ ...size, servers: 7 }));
  for (const id of ["i-0", "i-3"] as ResourceId[]) after.apply({ type: "delete", kind: "server", id });
  after.apply({ type: "update", kind: "server", id: "i-1" as ResourceId, set: { type: "m5.xlarge" } });
  after.apply({ type: "tag", kind: "server", id: "i-2" as ResourceId, set: { owner: "ops" }, remove: [] });
  const wanted = await arrange(1);
  for (const desired of [before, [...after.resources()]]) await bringTo(wanted, desired);
  const expected = picture(wanted, await loadPairings(wanted.store, of));

  let crashes = 0;
  for (const durable of [false, true]) {
    for (let at = 1; ; at += 1) {
      const bench = await arrange(at);
      let crashed = false;
      for (const desired of [before, [...after.resources()]]) {
        const store = crashed ? bench.store : crashingStore(bench.store, at, durable);
        try {
          await bringTo(bench, desired, { store });
        } catch (error) {
          if (!(error instanceof Crash)) throw error;
          crashed = true;
          crashes += 1;
          assert.deepEqual((await bringTo(bench, desired)).failures, []);
        }
      }
      assert.deepEqual(picture(bench, await loadPairings(bench.store, of)), expected, `commit ${at}`);
      await bench.store.close();
      if (!crashed) break;
    }
  }
  assert.ok(crashes > 80, `only ${crashes} crashes`);
});

test("a site that refuses, loses and throttles ends with each resource exactly once", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer(),
      fc.double({ min: 0, max: 0.4, noNaN: true }),
      async (seed, probability) => {
        const bench = await arrange(seed);
        const shop = shopEnvironment(size);
        const faults = seededFaults(createSeededRandom(seed), probability);
        const cloud = createFaultyCloud(bench.cloud, bench.clock, faults);
        await bringTo(bench, shop, { cloud });
        assert.deepEqual((await bringTo(bench, shop)).failures, []);
        const drawn = picture(bench, await loadPairings(bench.store, of));
        // Every second of five servers has an address and an association of its own.
        assert.equal(drawn.size, shop.length + 2 * 3);
        await bringTo(bench, [], { cloud });
        await bringTo(bench, []);
        assert.deepEqual(bench.cloud.inspect.resources(), []);
      },
    ),
    { numRuns: 60 },
  );
});
