import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "#kernel/clock.ts";
import { systemClock } from "#kernel/clock.ts";
import { acquireLease, releaseLease, renewLease } from "./leases.ts";
import { openSqliteStore } from "./open-sqlite-store.ts";

function clockAt(start: number): Clock & { time: number } {
  const clock = { ...systemClock, time: start, now: () => clock.time };
  return clock;
}

test("a second holder is refused with the first one's name, until its time is over", async (t) => {
  const store = await openSqliteStore({ path: ":memory:" });
  t.after(() => store.close());
  const clock = clockAt(1_000);
  const ask = (holder: string) => acquireLease(store, { name: "engine", holder, ttlMs: 500, clock });
  const first = await ask("host-a pid 1");
  assert.deepEqual([first.epoch, first.expiresAt], [1, 1_500]);
  await assert.rejects(ask("host-b pid 2"), {
    code: "state.conflict",
    message: /held by host-a pid 1 until/,
  });
  clock.time = 1_400;
  assert.equal((await renewLease(store, first, clock)).expiresAt, 1_900);
  clock.time = 1_901;
  const second = await ask("host-b pid 2");
  assert.equal(second.epoch, 2);
  await assert.rejects(renewLease(store, first, clock), { code: "state.fenced" });
  await assert.rejects(releaseLease(store, first), { code: "state.fenced" });
});

test("a released lease is free at once and its epoch goes on rising", async (t) => {
  const store = await openSqliteStore({ path: ":memory:" });
  t.after(() => store.close());
  const clock = clockAt(1_000);
  const ask = (holder: string) => acquireLease(store, { name: "engine", holder, ttlMs: 500, clock });
  await releaseLease(store, await ask("a"));
  assert.equal((await ask("b")).epoch, 2);
});

test("of two that ask in the same moment one gets it", async (t) => {
  const store = await openSqliteStore({ path: ":memory:" });
  t.after(() => store.close());
  const clock = clockAt(1_000);
  const race = (holders: string[]) =>
    Promise.allSettled(
      holders.map((holder) => acquireLease(store, { name: "engine", holder, ttlMs: 500, clock })),
    );
  const outcomes = async (holders: string[]) => (await race(holders)).map((result) => result.status).sort();
  assert.deepEqual(await outcomes(["a", "b"]), ["fulfilled", "rejected"], "nobody had it");
  clock.time = 5_000;
  assert.deepEqual(await outcomes(["c", "d"]), ["fulfilled", "rejected"], "it had run out");
});

test("a holder that is known to be gone is not waited for", async (t) => {
  const store = await openSqliteStore({ path: ":memory:" });
  t.after(() => store.close());
  const clock = clockAt(1_000);
  await acquireLease(store, { name: "engine", holder: "a", ttlMs: 500, clock });
  const next = await acquireLease(store, {
    name: "engine",
    holder: "b",
    ttlMs: 500,
    clock,
    formerHolderGone: true,
  });
  assert.equal(next.epoch, 2);
});
