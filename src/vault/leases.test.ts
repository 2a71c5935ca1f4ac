import assert from "node:assert/strict";
import { test } from "node:test";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { holdLease, LEASE_MS, readLeases } from "./leases.ts";
import { memoryStorage } from "./storage/memory-storage.ts";
import { newVault } from "./vault.fixture.ts";

test("a lease outlives whoever asked for it, until it is released", async () => {
  const clock = createVirtualClock();
  await using vault = await newVault(memoryStorage(), { clock });
  const asking = new AbortController();
  const lease = await holdLease(vault.context, "read", "a-point", asking.signal);
  asking.abort();
  await clock.drive(clock.sleep(5 * LEASE_MS));
  lease.check();
  assert.deepEqual(
    (await readLeases(vault.context)).map(({ subject }) => subject),
    ["a-point"],
  );
  await lease.release();
  assert.deepEqual(await readLeases(vault.context), []);
});
