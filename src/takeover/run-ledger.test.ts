import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment } from "#testing/record-commands.ts";
import { moveEnvironment, readEnvironment } from "#takeover/environment-record.ts";
import { openRunLedger, type NewRun } from "#takeover/run-ledger.ts";

const shop = environmentId("shop");
const ports = { clock: systemClock, random: systemRandom };

async function openLedger() {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, shop);
  return { store, ledger: await openRunLedger({ store, ...ports }) };
}

function newRun(kind: NewRun["kind"] = "drill"): NewRun {
  return { environment: shop, kind, trigger: "operator", reason: "a test", epoch: 1, input: { from: "a" } };
}

test("of two runs begun in the same moment one is refused, and leaves nothing", async () => {
  const { store, ledger } = await openLedger();
  const record = await readEnvironment(store, shop);
  const move = (): ReturnType<typeof moveEnvironment> =>
    moveEnvironment(store, systemClock, record, { phase: "failing_over", epoch: 2 });
  const ends = await Promise.allSettled([
    ledger.begin(newRun("drill"), []),
    ledger.begin(newRun("failover"), [move()]),
    ledger.begin(newRun("drill"), []),
  ]);
  assert.deepEqual(
    ends.map(({ status }) => status),
    ["fulfilled", "rejected", "rejected"],
  );
  for (const end of ends) {
    if (end.status === "rejected") assert.ok(isOperational(end.reason, "state.conflict"), String(end.reason));
  }
  assert.equal((await ledger.running()).length, 1);
  assert.equal((await readEnvironment(store, shop)).phase, "protected");
  assert.equal((await ledger.events(shop, 0, 10)).length, 1);
  await store.close();
});

test("a second run is refused by name while one runs, and taken when it has ended", async () => {
  const { store, ledger } = await openLedger();
  const first = await ledger.begin(newRun(), []);
  await assert.rejects(ledger.begin(newRun(), []), {
    code: "state.conflict",
    message: new RegExp(`in a drill already: .*${first.id}`),
  });
  await ledger.finish(first.id, "failed", "it broke", []);
  const second = await ledger.begin(newRun("failover"), []);
  assert.deepEqual(
    (await ledger.running()).map(({ id }) => id),
    [second.id],
  );
  await store.close();
});

test("a run ends once", async () => {
  const { store, ledger } = await openLedger();
  const run = await ledger.begin(newRun(), []);
  await ledger.finish(run.id, "succeeded", null, []);
  await assert.rejects(ledger.finish(run.id, "failed", "late", []), { code: "state.conflict" });
  assert.equal((await ledger.get(run.id))?.state, "succeeded");
  await store.close();
});

test("a step's end and what it changes are one commit", async () => {
  const { store, ledger } = await openLedger();
  const run = await ledger.begin(newRun("failover"), []);
  const record = await readEnvironment(store, shop);
  await ledger.stepStarted(run.id, 1, "fence");
  const stale = moveEnvironment(store, systemClock, { ...record, epoch: 7 }, { phase: "failed_over" });
  await assert.rejects(ledger.stepDone(run.id, 1, "done", null, [stale]), { code: "state.fenced" });
  const [step] = await ledger.steps(run.id);
  assert.equal(step?.state, "running");
  assert.equal((await ledger.results(run.id)).size, 0);
  const fitting = moveEnvironment(store, systemClock, record, { phase: "failed_over" });
  await ledger.stepDone(run.id, 1, "done", { stopped: ["i-1"] }, [fitting]);
  assert.equal((await readEnvironment(store, shop)).phase, "failed_over");
  assert.deepEqual([...(await ledger.results(run.id))], [["fence", { stopped: ["i-1"] }]]);
  await store.close();
});

test("the timeline goes on where an earlier process left it", async () => {
  const { store, ledger } = await openLedger();
  const event = { environment: shop, run: null, severity: "info", fields: {} } as const;
  await ledger.event({ ...event, message: "one" });
  const next = await openRunLedger({ store, ...ports });
  await next.event({ ...event, message: "two" });
  const told = await next.events(shop, 0, 10);
  assert.deepEqual(
    told.map(({ ordinal, message }) => [ordinal, message]),
    [
      [1, "one"],
      [2, "two"],
    ],
  );
  await store.close();
});
