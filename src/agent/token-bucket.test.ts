import assert from "node:assert/strict";
import { test } from "node:test";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { TokenBucket } from "./token-bucket.ts";

const { signal } = new AbortController();

test("bytes leave exactly at the rate, however they are cut", async () => {
  const clock = createVirtualClock();
  const bucket = new TokenBucket(clock, 1000);
  const times: number[] = [];
  await clock.drive(
    (async () => {
      for (const bytes of [500, 500, 1000, 3000]) {
        await bucket.take(bytes, signal);
        times.push(clock.monotonicMs());
      }
    })(),
  );
  assert.deepEqual(times, [500, 1000, 2000, 5000]);
});

test("what was not used is not saved up", async () => {
  const clock = createVirtualClock();
  const bucket = new TokenBucket(clock, 1000);
  await clock.drive(clock.sleep(60_000));
  await clock.drive(bucket.take(2000, signal));
  assert.equal(clock.monotonicMs(), 62_000);
});

test("callers at once share the rate, in order", async () => {
  const clock = createVirtualClock();
  const bucket = new TokenBucket(clock, 1000);
  const times: number[] = [];
  const take = (bytes: number): Promise<void> =>
    bucket.take(bytes, signal).then(() => void times.push(clock.monotonicMs()));
  await clock.drive(Promise.all([take(1000), take(1000), take(1000)]));
  assert.deepEqual(times, [1000, 2000, 3000]);
});

test("who leaves does not wait", async () => {
  const leave = new AbortController();
  const taken = new TokenBucket(createVirtualClock(), 1).take(1000, leave.signal);
  leave.abort(new Error("left"));
  await assert.rejects(taken, /left/u);
});
