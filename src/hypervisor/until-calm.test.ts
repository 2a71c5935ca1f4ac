import assert from "node:assert/strict";
import { test } from "node:test";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { untilCalm } from "./until-calm.ts";

const { signal } = new AbortController();

/** Milliseconds until it returns, for a guest that has read so often at each time. */
async function tookMs(readsAt: (ms: number) => number): Promise<number> {
  const clock = createVirtualClock();
  const began = clock.monotonicMs();
  const reads = (): Promise<number> => Promise.resolve(readsAt(clock.monotonicMs() - began));
  await clock.drive(untilCalm(reads, clock, signal));
  return clock.monotonicMs() - began;
}

test("a start is over when the guest has read and then nothing for two seconds", async () => {
  // Reads from its first to its fourth second, with pauses that are no end.
  const starting = (ms: number): number => Math.max(0, Math.floor((Math.min(ms, 4000) - 1000) / 1500));
  const took = await tookMs(starting);
  assert.ok(took >= 6000 && took < 6200, `${took} ms`);
});

test("one that ran before and reads nothing is calm after two seconds", async () => {
  const took = await tookMs(() => 700);
  assert.ok(took >= 2000 && took < 2200, `${took} ms`);
});

test("one that never reads, or never stops, is waited for 30 seconds", async () => {
  for (const reads of [() => 0, (ms: number) => Math.floor(ms / 50)]) {
    const took = await tookMs(reads);
    assert.ok(took >= 30_000 && took < 30_200, `${took} ms`);
  }
});

test("an abort ends the waiting", async () => {
  const clock = createVirtualClock();
  const reason = new Error("the machine goes off");
  const waiting = untilCalm(() => Promise.resolve(0), clock, AbortSignal.abort(reason));
  await assert.rejects(waiting, reason);
});
