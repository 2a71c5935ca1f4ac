import assert from "node:assert/strict";
import { test } from "node:test";
import { FlushPace } from "./flush-pace.ts";

test("quick flushes are made at once", () => {
  const pace = new FlushPace();
  assert.equal(pace.atOnce(0), true);
  pace.took(0.1, 5);
  assert.equal(pace.atOnce(5), true);
});

test("a slow one is the last for twenty times as long as it took", () => {
  const pace = new FlushPace();
  pace.took(8, 100);
  assert.deepEqual([pace.atOnce(259), pace.atOnce(260)], [false, true]);
  pace.took(0.2, 260);
  assert.equal(pace.atOnce(260), true);
});

test("however slow the disk is, the loop is held for a twentieth of the time", () => {
  for (const ms of [0.6, 5, 200, 3_000]) {
    const pace = new FlushPace();
    let now = 0;
    let held = 0;
    while (now < 1_000_000) {
      if (pace.atOnce(now)) {
        now += ms;
        held += ms;
        pace.took(ms, now);
      }
      now += 1;
    }
    assert.ok(held <= now / 20, `${ms} ms: ${held} of ${now}`);
  }
});
