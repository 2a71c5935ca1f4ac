import assert from "node:assert/strict";
import { test } from "node:test";
import { systemRandom } from "#kernel/random.ts";
import { CommandIds } from "./command-ids.ts";

const timeOf = (id: string): number => Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16);

test("command ids are UUIDs of version 7 with their time, each greater than the one before", () => {
  const ids = new CommandIds();
  const times = [0, 5, 1_795_259_101_000, 1_795_259_101_000, 1_795_259_101_001];
  const made = times.map((at) => ids.next(systemRandom, at));
  for (const id of made)
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual(made.map(timeOf), times);
  assert.deepEqual(made.toSorted(), made);
  assert.equal(new Set(made).size, made.length);
});

test("they rise where the clock goes back, and where a millisecond has more of them than it can count", () => {
  const ids = new CommandIds();
  const made = [ids.next(systemRandom, 2_000), ids.next(systemRandom, 1_000)];
  for (let n = 0; n < 10_000; n += 1) made.push(ids.next(systemRandom, 2_000));
  assert.deepEqual(made.toSorted(), made);
  assert.equal(new Set(made).size, made.length);
  assert.equal(timeOf(made.at(-1) ?? ""), 2_002);
});
