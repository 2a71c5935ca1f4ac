import assert from "node:assert/strict";
import { test } from "node:test";
import type { Cloud, Observed } from "#cloud/contract.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId, resourceId, type ResourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment } from "#testing/record-commands.ts";
import { shopEnvironment } from "#testing/shop-environment.ts";
import type { RouteTarget, TrafficSwitch } from "#traffic/traffic-switch.ts";
import { type EnvironmentMove, moveEnvironment, readEnvironment } from "#takeover/environment-record.ts";
import { createTrafficDirector, type TrafficDirector } from "#takeover/traffic-director.ts";

const shop = environmentId("shop");
const signal = new AbortController().signal;

/** Servers of one site, by id: whether each one is ready. */
type Standing = Map<string, "ready" | "pending" | "stopped">;

function siteOf(standing: Standing): Cloud {
  return {
    async *list(_kind: string, { ids }: { ids: readonly ResourceId[] }) {
      yield await Promise.resolve(
        ids.flatMap((id): Observed<"server">[] => {
          const status = standing.get(id);
          if (status === undefined) return [];
          const resource = { kind: "server", id, spec: {}, tags: {} };
          return [
            { resource, status, addresses: { public: [`10.9.0.${standing.size}`], private: [] } },
          ] as never;
        }),
      );
    },
  } as unknown as Cloud;
}

/** A switch that keeps what it was told, and refuses an older epoch as the contract has it. */
class RecordingSwitch implements TrafficSwitch {
  readonly kind = "recording";
  readonly applied: RouteTarget[] = [];
  failWith: Error | undefined;

  apply(target: RouteTarget): Promise<void> {
    if (this.failWith !== undefined) return Promise.reject(this.failWith);
    const last = this.applied.at(-1);
    if (last !== undefined && target.epoch < last.epoch) {
      return Promise.reject(new OperationalError("state.fenced", `epoch ${target.epoch} is over`));
    }
    this.applied.push(target);
    return Promise.resolve();
  }

  read(): never {
    throw new Error("the director does not ask");
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  ids(): readonly string[] {
    return (this.applied.at(-1)?.backends ?? []).map(({ id }) => id);
  }
}

interface Fixture {
  readonly director: TrafficDirector;
  readonly through: RecordingSwitch;
  readonly active: Standing;
  readonly standby: Standing;
  readonly counterparts: Map<string, ResourceId>;
  readonly state: EnvironmentState;
  move(to: EnvironmentMove): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Six servers; i-0 and i-3 are of the web tier, and the standby holds a counterpart of i-0. */
async function open(select: Readonly<Record<string, string>> = { tier: "web" }): Promise<Fixture> {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, shop);
  const state = EnvironmentState.of(shopEnvironment({ servers: 6 }));
  const active: Standing = new Map([0, 1, 2, 3, 4, 5].map((at) => [`i-${at}`, "ready"]));
  const standby: Standing = new Map([["w-0", "ready"]]);
  const counterparts = new Map([["i-0", resourceId("w-0")]]);
  const through = new RecordingSwitch();
  const director = createTrafficDirector({
    environment: shop,
    store,
    clock: systemClock,
    log: silentLog,
    routes: [{ rule: { name: "web", select, port: 8080 }, through }],
    cloudOf: (site) => siteOf(site === "active" ? active : standby),
    state: () => state,
    counterparts: () => Promise.resolve(counterparts),
  });
  return {
    director,
    through,
    active,
    standby,
    counterparts,
    state,
    move: async (to) => {
      await store.commit([moveEnvironment(store, systemClock, await readEnvironment(store, shop), to)]);
    },
    [Symbol.asyncDispose]: () => store.close(),
  };
}

test("a route leads to the ready servers that its tags select, and is applied once", async () => {
  await using one = await open();
  one.active.set("i-3", "pending");
  const { site, routes } = await one.director.direct(signal);
  assert.equal(site, "active");
  assert.deepEqual(one.through.ids(), ["i-0"]);
  assert.deepEqual([routes[0]?.backends, routes[0]?.missing, routes[0]?.error], [1, 1, null]);
  await one.director.direct(signal);
  assert.equal(one.through.applied.length, 1, "what stands is not applied again");
  one.active.set("i-3", "ready");
  await one.director.direct(signal);
  assert.deepEqual(one.through.ids(), ["i-0", "i-3"]);
});

test("during a takeover a route leads to the counterparts, as they come", async () => {
  await using one = await open();
  await one.director.direct(signal);
  await one.move({ phase: "failing_over", epoch: 2 });
  const { site, routes } = await one.director.direct(signal);
  assert.equal(site, "standby");
  assert.deepEqual(one.through.ids(), ["w-0"]);
  assert.equal(one.through.applied.at(-1)?.epoch, 2);
  assert.equal(routes[0]?.missing, 1);
  one.counterparts.set("i-3", resourceId("w-3"));
  one.standby.set("w-3", "ready");
  await one.director.direct(signal);
  assert.deepEqual(one.through.ids(), ["w-0", "w-3"]);
});

test("a route is never switched to nothing", async () => {
  await using one = await open();
  await one.director.direct(signal);
  await one.move({ phase: "failing_over", epoch: 2 });
  one.standby.clear();
  const { routes } = await one.director.direct(signal);
  assert.deepEqual(one.through.ids(), ["i-0", "i-3"], "it stays where it was");
  assert.equal(routes[0]?.site, null);
  assert.match(routes[0]?.error ?? "", /no server that could take this route is ready/);
});

test("a new epoch is told to the switch although the servers are the same", async () => {
  await using one = await open();
  await one.director.direct(signal);
  await one.move({ phase: "failing_over", epoch: 2 });
  await one.move({ phase: "protected", epoch: 3 });
  await one.director.direct(signal);
  assert.deepEqual(
    one.through.applied.map(({ epoch }) => epoch),
    [1, 3],
  );
});

test("what a switch refuses is told, and asked again", async () => {
  await using one = await open();
  one.through.failWith = new OperationalError("state.fenced", "another control plane has applied epoch 9");
  const refused = await one.director.direct(signal);
  assert.match(refused.routes[0]?.error ?? "", /epoch 9/);
  assert.equal(refused.routes[0]?.site, null);
  assert.deepEqual(one.director.status(), refused.routes);
  one.through.failWith = undefined;
  const { routes } = await one.director.direct(signal);
  assert.equal(routes[0]?.error, null);
  assert.deepEqual(one.through.ids(), ["i-0", "i-3"]);
});

test("a bug in a switch is no status", async () => {
  await using one = await open();
  one.through.failWith = new TypeError("undefined is not a function");
  await assert.rejects(one.director.direct(signal), TypeError);
});

test("a stopped server is not selected, and no server at all is said so", async () => {
  await using one = await open();
  one.state.apply({ type: "update", kind: "server", id: resourceId("i-3"), set: { power: "stopped" } });
  const { routes } = await one.director.direct(signal);
  assert.deepEqual([one.through.ids(), routes[0]?.missing], [["i-0"], 0]);
  await using none = await open({ tier: "none" });
  assert.match((await none.director.direct(signal)).routes[0]?.error ?? "", /no server bears its tags/);
});

test("follows when nudged, long before its time", async () => {
  await using one = await open();
  const stop = new AbortController();
  const following = one.director.follow(3_600_000, stop.signal);
  const until = async (ids: readonly string[]): Promise<void> => {
    while (one.through.ids().join() !== ids.join()) await new Promise((resolve) => setImmediate(resolve));
  };
  await until(["i-0", "i-3"]);
  one.active.delete("i-0");
  one.director.nudge();
  await until(["i-3"]);
  stop.abort(new Error("enough"));
  await following;
});
