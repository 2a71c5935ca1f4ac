import assert from "node:assert/strict";
import { test } from "node:test";
import { WriteOrder } from "./write-order.ts";

test("writes that overlap land in the order in which they came, others do not wait", async () => {
  const order = new WriteOrder();
  const landed: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = order.run(0, 100, async () => {
    await gate.promise;
    landed.push("first");
  });
  const second = order.run(50, 100, async () => void landed.push("second"));
  const third = order.run(120, 10, async () => void landed.push("third"));
  await order.run(150, 10, async () => void landed.push("beside"));
  assert.deepEqual(landed, ["beside"], "the third overlaps the second, which waits");
  gate.resolve();
  await Promise.all([first, second, third]);
  assert.deepEqual(landed, ["beside", "first", "second", "third"]);
});

test("one that fails holds up nobody", async () => {
  const order = new WriteOrder();
  const failing = order.run(0, 10, () => Promise.reject(new Error("the disk is full")));
  const next = order.run(0, 10, async () => {});
  await assert.rejects(failing, /full/u);
  await next;
});
