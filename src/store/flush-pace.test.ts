import assert from "node:assert/strict";
import { test } from "node:test";
import { FlushPace } from "./flush-pace.ts";

test("quick flushes for few callers are made at once, for many beside the loop", () => {
  const pace = new FlushPace();
  assert.deepEqual([pace.atOnce(1, 0), pace.atOnce(2, 0), pace.atOnce(3, 0)], [true, true, false]);
  pace.took(0.1, 5);
  assert.equal(pace.atOnce(1, 5), true);
});

test("a slow one is the last for a while, and for twice as long each time that the disk is still slow", () => {
  const pace = new FlushPace();
  pace.took(8, 100);
  assert.deepEqual([pace.atOnce(1, 1_099), pace.atOnce(1, 1_100)], [false, true]);
  pace.took(8, 1_100);
  assert.deepEqual([pace.atOnce(1, 3_099), pace.atOnce(1, 3_100)], [false, true]);
  pace.took(0.2, 3_100);
  pace.took(8, 4_000);
  assert.deepEqual([pace.atOnce(1, 4_999), pace.atOnce(1, 5_000)], [false, true]);
});

test("however slow the disk stays, it is tried once a minute", () => {
  const pace = new FlushPace();
  let now = 0;
  for (let tries = 0; tries < 20; tries += 1) {
    pace.took(1_000, now);
    now += 60_000;
    assert.equal(pace.atOnce(1, now), true);
  }
  assert.equal(pace.atOnce(1, now), true);
});
