import assert from "node:assert/strict";
import { test } from "node:test";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { OperationalError } from "#kernel/errors.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { createCallLimiter } from "./call-limiter.ts";

const { signal } = new AbortController();

async function load(told: number | null, seconds: number, concurrency: number) {
  const clock = createVirtualClock();
  const cloud = createMemoryCloud({
    clock,
    random: createSeededRandom(1),
    latencyMs: 100,
    callsPerSecond: 200,
    facts: { callsPerSecond: told, concurrency },
  });
  const limiter = createCallLimiter(cloud.facts, clock);
  const answers: number[] = [];
  let throttledEarly = 0;
  const worker = async (): Promise<void> => {
    while (clock.monotonicMs() < seconds * 1000) {
      await limiter.run(() => cloud.identify(signal), { priority: 1, signal });
      answers.push(clock.monotonicMs());
      if (clock.monotonicMs() < settledAfterS * 1000) throttledEarly = cloud.inspect.throttled;
    }
  };
  await clock.drive(Promise.all(Array.from({ length: 600 }, worker)));
  const within = (from: number, to: number): number =>
    answers.filter((at) => at >= from * 1000 && at < to * 1000).length / (to - from);
  const throttledLate = cloud.inspect.throttled - throttledEarly;
  return {
    within,
    cloud,
    shareLate: throttledLate / (throttledLate + within(settledAfterS, seconds) * (seconds - settledAfterS)),
  };
}

const settledAfterS = 5;

for (const concurrency of [4, 16, 64, 200]) {
  test(`a rate that nobody told is found from a window of ${concurrency}`, async () => {
    const { within, cloud, shareLate } = await load(null, 20, concurrency);
    const [early, settled] = [within(0, settledAfterS), within(settledAfterS, 20)];
    const share = cloud.inspect.throttled / cloud.inspect.calls;
    const percent = (part: number): string => `${(part * 100).toFixed(1)} %`;
    const figures = `early ${early.toFixed(0)}/s, settled ${settled.toFixed(0)}/s, throttled ${percent(share)}, ${percent(shareLate)} once settled`;
    assert.ok(settled >= 0.9 * 200, figures);
    assert.ok(early >= 0.7 * 200, figures);
    assert.ok(shareLate <= 0.04, figures);
    assert.ok(share <= 0.08, figures);
  });
}

test("a published rate is kept to", async () => {
  const { within, cloud } = await load(200, 10, 64);
  assert.ok(within(0, 10) >= 190, String(within(0, 10)));
  assert.ok(cloud.inspect.throttled <= cloud.inspect.calls * 0.005, String(cloud.inspect.throttled));
});

test("higher priority goes first, then the order of asking", async () => {
  const clock = createVirtualClock();
  const limiter = createCallLimiter({ concurrency: 1, callsPerSecond: null }, clock);
  const order: string[] = [];
  const call = (name: string, priority: number): Promise<void> =>
    limiter.run(
      async () => {
        await clock.sleep(10);
        order.push(name);
      },
      { priority, signal },
    );
  await clock.drive(
    Promise.all([
      call("first", 0),
      call("low", 1),
      call("high", 9),
      call("low again", 1),
      call("higher", 10),
    ]),
  );
  assert.deepEqual(order, ["first", "higher", "high", "low", "low again"]);
});

test("an aborted caller gives its place up, and other errors are the caller's", async () => {
  const clock = createVirtualClock();
  const limiter = createCallLimiter({ concurrency: 1, callsPerSecond: null }, clock);
  const stop = new AbortController();
  const slow = limiter.run(() => clock.sleep(50), { priority: 0, signal });
  const waiting = limiter.run(() => Promise.resolve("never"), { priority: 0, signal: stop.signal });
  const refused = limiter.run(() => Promise.reject(new OperationalError("cloud.refused", "no")), {
    priority: 0,
    signal,
  });
  const both = Promise.all([assert.rejects(waiting, /enough/), assert.rejects(refused, /no/)]);
  stop.abort(new Error("enough"));
  await clock.drive(slow);
  await both;
});
