import assert from "node:assert/strict";
import { test } from "node:test";
import { systemRandom } from "#kernel/random.ts";
import { newCommandId } from "./command-ids.ts";

test("command ids are UUIDs of version 7 that rise with time and differ within a millisecond", () => {
  const times = [0, 5, 1_795_259_101_000, 1_795_259_101_000, 1_795_259_101_001];
  const ids = times.map((at) => newCommandId(systemRandom, at));
  for (const [index, id] of ids.entries()) {
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16), times[index]);
  }
  assert.equal(new Set(ids).size, ids.length);
});
