import assert from "node:assert/strict";
import { test } from "node:test";
import { planWindow } from "./prune-log.ts";

const segments = [100, 200, 300, 400].map((lastTimeMs) => ({ bytes: 10, lastTimeMs }));

test("the window keeps what is young enough and small enough, and always the newest segment", () => {
  const first = (windowMs: number, windowBytes: number, nowMs = 400): number =>
    planWindow(segments, { windowMs, windowBytes }, nowMs);
  assert.equal(first(1000, 1000), 0, "all of it");
  assert.equal(first(150, 1000), 2, "by time");
  assert.equal(first(100, 1000), 2, "a record at the window's very beginning is inside");
  assert.equal(first(1000, 25), 2, "by size");
  assert.equal(first(1000, 5), 3, "the newest, even if it alone is too large");
  assert.equal(first(150, 1000, 10_000), 4, "nothing is young enough");
  assert.equal(planWindow([], { windowMs: 1, windowBytes: 1 }, 0), 0);
});
