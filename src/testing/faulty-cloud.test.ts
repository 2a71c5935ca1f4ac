import assert from "node:assert/strict";
import { test } from "node:test";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Random } from "#kernel/random.ts";
import { systemRandom } from "#kernel/random.ts";
import { conformanceTests } from "./conformance-tests.ts";
import { createFaultyCloud, scriptedFaults, seededFaults } from "./faulty-cloud.ts";

const signal = new AbortController().signal;
const request = {
  kind: "volume",
  spec: { sizeGiB: 1 },
  tags: {},
  token: "t",
  scope: "s",
  mayExist: false,
} as const;

void test("a lost request is not applied, a lost answer is, and neither says so", async () => {
  for (const [type, made] of [
    ["lose_request", 0],
    ["lose_answer", 1],
  ] as const) {
    const memory = createMemoryCloud({ clock: systemClock, random: systemRandom });
    const cloud = createFaultyCloud(memory, systemClock, scriptedFaults([{ type }]));
    await assert.rejects(
      cloud.create(request, signal),
      (error) => isOperational(error, "cloud.timeout") && error.outcome === "unknown",
    );
    assert.equal(memory.inspect.resources().length, made);
    await cloud.create({ ...request, mayExist: true }, signal);
    assert.equal(memory.inspect.resources().length, 1);
  }
});

void test("a script meets only the calls that it is for", async () => {
  const memory = createMemoryCloud({ clock: systemClock, random: systemRandom });
  const plan = scriptedFaults([{ type: "throttle", retryAfterMs: 7 }], ({ method }) => method === "create");
  const cloud = createFaultyCloud(memory, systemClock, plan);
  await cloud.identify(signal);
  await assert.rejects(
    cloud.create(request, signal),
    (error) => isOperational(error, "cloud.throttled") && error.retryAfterMs === 7,
  );
  await cloud.create(request, signal);
  assert.equal(cloud.injected, 1);
});

/** Mulberry32: a seed replays the faults. */
function seeded(seed: number): Random {
  let state = seed;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { ...systemRandom, fraction };
}

const memory = createMemoryCloud({ clock: systemClock, random: systemRandom, latencyMs: 1, pageSize: 5 });
await conformanceTests({
  name: "memory behind faults (seed 20)",
  cloud: createFaultyCloud(memory, systemClock, seededFaults(seeded(20), 0.15)),
});
