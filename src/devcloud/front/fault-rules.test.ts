import assert from "node:assert/strict";
import test from "node:test";
import { systemRandom } from "#kernel/random.ts";
import { systemClock, type Clock } from "#kernel/clock.ts";
import { latencyMs, RateLimits } from "./call-limits.ts";
import { FaultRules, faultSpec } from "./fault-rules.ts";

const rule = (spec: object) => faultSpec.parse({ effect: "refuse", ...spec });

void test("by name, after some, so many times", () => {
  const rules = new FaultRules([rule({ operation: "Run*", skip: 1, count: 2 })]);
  const hits = ["RunInstances", "DescribeVpcs", "RunInstances", "RunInstances", "RunInstances"].map(
    (operation) => rules.hit(operation) !== undefined,
  );
  assert.deepEqual(hits, [false, false, true, true, false]);
});

void test("a seed makes the same hits again, about as many as the probability says", () => {
  const draw = (seed: number): boolean[] => {
    const rules = new FaultRules([rule({ probability: 0.3, seed })]);
    return Array.from({ length: 2000 }, () => rules.hit("x") !== undefined);
  };
  assert.deepEqual(draw(7), draw(7));
  assert.notDeepEqual(draw(7), draw(8));
  const share = draw(7).filter(Boolean).length / 2000;
  assert.ok(share > 0.25 && share < 0.35, String(share));
});

void test("an unknown key is an error", () => {
  assert.throws(() => rule({ operaton: "x" }), /operaton/);
});

void test("a bucket gives its burst, then its rate, and says how long to wait", () => {
  let now = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => now };
  const limits = new RateLimits(clock, { "*": { perSecond: 10, burst: 2 } });
  assert.equal(limits.take("a"), null);
  assert.equal(limits.take("b"), null);
  assert.equal(limits.take("a"), 100);
  now = 100;
  assert.equal(limits.take("a"), null);
  assert.equal(limits.take("a"), 100);
});

void test("latency is the fixed part and some of the jitter", () => {
  const random = { ...systemRandom, fraction: () => 0.5 };
  assert.equal(latencyMs({ fixedMs: 10, jitterMs: 4 }, random), 12);
});
