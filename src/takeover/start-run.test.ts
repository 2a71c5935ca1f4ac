import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { environmentId, resourceId } from "#kernel/ids.ts";
import type { EnvironmentPhase, RunKind } from "#model/run.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment } from "#testing/record-commands.ts";
import { moveEnvironment, readEnvironment } from "#takeover/environment-record.ts";
import { moveInput } from "#takeover/failover-script.ts";
import { prepareRun } from "#takeover/start-run.ts";

const shop = environmentId("shop");

/** From each phase: which runs may begin, the phase that they put the environment in, and whether the old epoch is fenced. */
const table: Readonly<Record<EnvironmentPhase, Partial<Record<RunKind, [EnvironmentPhase, boolean]>>>> = {
  protected: {
    failover: ["failing_over", true],
    migrate: ["migrating", true],
    swap: ["failing_over", true],
    drill: ["protected", false],
    restore: ["protected", false],
  },
  failing_over: { failover: ["failing_over", true] },
  failed_over: {
    failback: ["failing_back", true],
    swap: ["failed_over", true],
    restore: ["failed_over", false],
  },
  failing_back: { failback: ["failing_back", true] },
  migrating: { migrate: ["migrating", true], failover: ["failing_over", true] },
};

for (const phase of Object.keys(table) as EnvironmentPhase[]) {
  for (const kind of ["failover", "failback", "migrate", "swap", "drill", "restore"] as const) {
    const expected = table[phase][kind];
    test(`a ${kind} of an environment that is ${phase} ${expected === undefined ? "is refused" : "begins"}`, async () => {
      const store = await openSqliteStore({ path: ":memory:" });
      await putEnvironment(store, shop);
      const first = await readEnvironment(store, shop);
      await store.commit([moveEnvironment(store, systemClock, first, { phase })]);
      const record = await readEnvironment(store, shop);
      const named = kind === "restore" ? { at: 5 } : {};
      const part = kind === "restore" ? { volumes: [resourceId("vol-1")] } : {};
      const request = {
        environment: shop,
        kind,
        by: "operator",
        reason: "",
        force: false,
        ...named,
      } as const;
      const prepare = (): ReturnType<typeof prepareRun> =>
        prepareRun(store, systemClock, record, request, part);
      if (expected === undefined) {
        assert.throws(prepare, {
          code: "state.conflict",
          message: new RegExp(`cannot begin a ${kind} now: .+`),
        });
      } else {
        const { run, effects } = prepare();
        const [phaseDuring, fences] = expected;
        if (effects.length > 0) await store.commit(effects);
        const moved = await readEnvironment(store, shop);
        assert.deepEqual([moved.phase, moved.epoch], [phaseDuring, fences ? 2 : 1]);
        assert.equal(run.epoch, moved.epoch, "the run holds the epoch that it took");
        const { from, to, forGood } = moveInput(run.input);
        assert.deepEqual([from, to], ["active", "standby"]);
        assert.equal(forGood, kind === "swap" && phase === "protected");
        // Whoever prepared from the same record comes too late.
        if (fences) await assert.rejects(store.commit(prepare().effects), { code: "state.fenced" });
      }
      await store.close();
    });
  }
}

test("force without a reason is refused, and kept with one", async () => {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, shop);
  const record = await readEnvironment(store, shop);
  const request = { environment: shop, kind: "failover", by: "operator", force: true } as const;
  for (const reason of ["", "  ", " x "]) {
    assert.throws(() => prepareRun(store, systemClock, record, { ...request, reason }), {
      code: "input.invalid",
    });
  }
  const { run } = prepareRun(store, systemClock, record, { ...request, reason: "the building burns" });
  assert.equal(run.reason, "the building burns");
  assert.equal(moveInput(run.input).force, true);
  await store.close();
});

test("a restore names its volumes and its moment, a write its time, and nothing else is live", async () => {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, shop);
  const record = await readEnvironment(store, shop);
  const asked = { environment: shop, by: "operator", reason: "", force: false };
  const part = { volumes: [resourceId("vol-1")] };
  for (const [request, named] of [
    [{ ...asked, kind: "restore", at: 5 }, {}],
    [{ ...asked, kind: "restore" }, part],
    [{ ...asked, kind: "drill", sequence: 7 }, {}],
    [{ ...asked, kind: "drill", live: true }, {}],
    [{ ...asked, kind: "drill", asItIs: true }, {}],
    [{ ...asked, kind: "restore", asItIs: true }, {}],
    [{ ...asked, kind: "restore", asItIs: true, at: 5 }, part],
    [{ ...asked, kind: "restore", asItIs: true, live: true }, part],
  ] as const) {
    assert.throws(() => prepareRun(store, systemClock, record, request, named), { code: "input.invalid" });
  }
  const request = { ...asked, kind: "restore", at: 5, sequence: 7, live: true } as const;
  const { run } = prepareRun(store, systemClock, record, request, part);
  const { at, sequence, volumes, live, from } = moveInput(run.input);
  assert.deepEqual([at, sequence, volumes, live, from], [5, 7, ["vol-1"], true, record.activeSite]);
  await store.close();
});
