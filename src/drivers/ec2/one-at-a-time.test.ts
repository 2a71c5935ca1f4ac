import assert from "node:assert/strict";
import { test } from "node:test";
import { oneAtATime } from "./one-at-a-time.ts";

const live = new AbortController().signal;

void test("work under one key follows the one before, also when that failed; other keys do not wait", async () => {
  const serially = oneAtATime();
  const seen: string[] = [];
  const gate = Promise.withResolvers<undefined>();
  const first = serially("a", live, async (isFirst) => {
    seen.push(`a1 ${isFirst}`);
    await gate.promise;
    throw new Error("a1 failed");
  });
  const second = serially("a", live, async (isFirst) => seen.push(`a2 ${isFirst}`));
  await serially("b", live, async (isFirst) => seen.push(`b ${isFirst}`));
  assert.deepEqual(seen, ["a1 true", "b true"]);
  gate.resolve(undefined);
  await assert.rejects(first, /a1 failed/);
  await second;
  await serially("a", live, async (isFirst) => seen.push(`a3 ${isFirst}`));
  assert.deepEqual(seen, ["a1 true", "b true", "a2 false", "a3 true"]);
});

void test("who waits can lose patience, and its work never starts", async () => {
  const serially = oneAtATime();
  const gate = Promise.withResolvers<undefined>();
  const first = serially("a", live, () => gate.promise);
  const patience = new AbortController();
  let started = false;
  const second = serially("a", patience.signal, async () => {
    started = true;
  });
  patience.abort(new Error("enough"));
  await assert.rejects(second, /enough/);
  gate.resolve(undefined);
  await first;
  assert.equal(started, false);
});
