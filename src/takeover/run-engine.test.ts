import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment } from "#testing/record-commands.ts";
import { createVirtualClock, type VirtualClock } from "#testing/virtual-clock.ts";
import { executeRun, type RunScript, type Step } from "#takeover/run-engine.ts";
import { openRunLedger, type RunLedger, type StoredRun } from "#takeover/run-ledger.ts";

const shop = environmentId("shop");

class Killed extends Error {}

interface Fixture {
  readonly store: Store;
  readonly clock: VirtualClock;
  readonly ledger: RunLedger;
  readonly run: StoredRun;
}

async function openFixture(): Promise<Fixture> {
  const store = await openSqliteStore({ path: ":memory:" });
  await putEnvironment(store, shop);
  const clock = createVirtualClock();
  const ledger = await openRunLedger({ store, clock, random: systemRandom });
  const run = await ledger.begin(
    { environment: shop, kind: "drill", trigger: "operator", reason: "a test", epoch: 1, input: null },
    [],
  );
  return { store, clock, ledger, run };
}

const writes = ["stepStarted", "stepDone", "stepFailed", "finish", "event"] as const;

/** Dies before or after its n-th write, as a process does: nothing that follows reaches the disk. */
function dyingLedger(
  inner: RunLedger,
  killAt: number,
  when: "before" | "after",
): RunLedger & { dead(): boolean } {
  let count = 0;
  let dead = false;
  const wrapped: Record<string, unknown> = { ...inner, dead: () => dead };
  for (const name of writes) {
    wrapped[name] = async (...args: unknown[]): Promise<void> => {
      if (dead) throw new Killed();
      count += 1;
      if (count === killAt && when === "before") {
        dead = true;
        throw new Killed();
      }
      await (inner[name] as (...values: unknown[]) => Promise<void>)(...args);
      if (count === killAt) {
        dead = true;
        throw new Killed();
      }
    };
  }
  return wrapped as unknown as RunLedger & { dead(): boolean };
}

function execute(
  { clock, run }: Fixture,
  ledger: RunLedger,
  script: RunScript,
  onStepDone: () => Promise<void> = () => Promise.resolve(),
): ReturnType<typeof executeRun> {
  const ports = { ledger, clock, random: systemRandom, log: silentLog, onStepDone };
  return clock.drive(executeRun(ports, run, script, new AbortController().signal));
}

/** Every step counts how often its effect became durable, in the record of the run's own results. */
function scriptOf(calls: string[], failing: string | null, rollback: boolean): RunScript {
  const step = (name: string): Step => ({
    name,
    execute: ({ results }) => {
      calls.push(name);
      if (name === failing) throw new OperationalError("cloud.refused", `${name} is refused`);
      return Promise.resolve({ summary: `${name} done`, result: { after: [...results.keys()] } });
    },
  });
  return {
    steps: ["one", "two", "three"].map(step),
    ...(rollback ? { rollback: ["undo a", "undo b"].map(step) } : {}),
    patienceMs: 1000,
    conclude: (_results, ended) => ({
      state: ended === "done" ? "succeeded" : ended,
      error: null,
      effects: [],
    }),
  };
}

for (const [failing, rollback, state] of [
  [null, true, "succeeded"],
  ["two", true, "rolled_back"],
  ["two", false, "failed"],
] as const) {
  test(`killed between every two writes, a run ends ${state} all the same`, async () => {
    for (let killAt = 1, deaths = 1; deaths > 0; killAt += 1) {
      deaths = 0;
      for (const when of ["before", "after"] as const) {
        const fixture = await openFixture();
        const calls: string[] = [];
        const dying = dyingLedger(fixture.ledger, killAt, when);
        try {
          await execute(fixture, dying, scriptOf(calls, failing, rollback));
        } catch (error) {
          assert.ok(error instanceof Killed, String(error));
        }
        if (dying.dead()) deaths += 1;
        const stored = await fixture.ledger.get(fixture.run.id);
        if (stored?.state === "running") {
          assert.equal(await execute(fixture, fixture.ledger, scriptOf(calls, failing, rollback)), state);
        }
        assert.equal((await fixture.ledger.get(fixture.run.id))?.state, state);
        const steps = await fixture.ledger.steps(fixture.run.id);
        const reached = failing === null ? ["one", "two", "three"] : ["one", "two"];
        const undone = failing === null || !rollback ? [] : ["undo a", "undo b"];
        assert.deepEqual(
          steps.map((step) => `${step.name} ${step.state}`),
          [...reached, ...undone].map((name) => `${name} ${name === failing ? "failed" : "done"}`),
        );
        // Only the step during which it died may have been begun twice, and none is begun after its end.
        for (const name of new Set(calls)) {
          const times = calls.filter((call) => call === name).length;
          assert.ok(times <= 2, `${name} was executed ${times} times`);
        }
        assert.ok(calls.length <= reached.length + undone.length + 1, calls.join(", "));
        await fixture.store.close();
      }
    }
  });
}

test("a step that is done is never begun anew, whatever fails after it", async () => {
  const fixture = await openFixture();
  const calls: string[] = [];
  let told = 0;
  const failOnce = (): Promise<void> => {
    told += 1;
    if (told === 1)
      return Promise.reject(new OperationalError("cloud.unreachable", "the gateway's new upstream"));
    return Promise.resolve();
  };
  const script = scriptOf(calls, null, true);
  await assert.rejects(execute(fixture, fixture.ledger, script, failOnce), { code: "cloud.unreachable" });
  assert.equal(await execute(fixture, fixture.ledger, script, failOnce), "succeeded");
  assert.deepEqual(calls, ["one", "two", "three"]);
  await fixture.store.close();
});

test("a step is repeated while waiting may help, and given up when patience ends", async () => {
  const fixture = await openFixture();
  let attempts = 0;
  const flaky = (until: number): RunScript => ({
    steps: [
      {
        name: "drain",
        execute: () => {
          attempts += 1;
          if (attempts < until) throw new OperationalError("cloud.unreachable", "no answer");
          return Promise.resolve({ summary: "drained" });
        },
      },
    ],
    patienceMs: 10_000,
    conclude: (_results, ended) => ({
      state: ended === "done" ? "succeeded" : ended,
      error: null,
      effects: [],
    }),
  });
  assert.equal(await execute(fixture, fixture.ledger, flaky(4)), "succeeded");
  assert.equal(attempts, 4);
  assert.equal((await fixture.ledger.steps(fixture.run.id))[0]?.attempts, 4);
  const repeated = (await fixture.ledger.events(shop, 0, 50)).filter(({ message }) =>
    message.includes("repeated"),
  );
  assert.equal(repeated.length, 1, "the same message is told once");
  await fixture.store.close();

  const other = await openFixture();
  const begun = other.clock.monotonicMs();
  attempts = 0;
  assert.equal(await execute(other, other.ledger, flaky(Number.POSITIVE_INFINITY)), "failed");
  assert.ok(other.clock.monotonicMs() - begun >= 10_000);
  assert.match((await other.ledger.get(other.run.id))?.error ?? "", /drain: no answer/);
  await other.store.close();
});

test("an undo that fails leaves both failures in the run's error", async () => {
  const fixture = await openFixture();
  const refuse = (name: string): Step => ({
    name,
    execute: () => Promise.reject(new OperationalError("cloud.refused", `${name} is refused`)),
  });
  const script: RunScript = {
    steps: [refuse("move")],
    rollback: [refuse("undo")],
    patienceMs: 0,
    conclude: (_results, ended) => ({
      state: ended === "done" ? "succeeded" : ended,
      error: null,
      effects: [],
    }),
  };
  assert.equal(await execute(fixture, fixture.ledger, script), "failed");
  const { error } = (await fixture.ledger.get(fixture.run.id)) ?? {};
  assert.match(error ?? "", /move is refused.*undoing it failed too: .*undo is refused/);
  await fixture.store.close();
});
