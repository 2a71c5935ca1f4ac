import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedFlush } from "./shared-flush.ts";

/** A flush whose runs end when the test says so. */
function gated() {
  const runs: PromiseWithResolvers<void>[] = [];
  const flush = new SharedFlush(() => {
    const run = Promise.withResolvers<void>();
    runs.push(run);
    return run.promise;
  });
  return { flush, runs };
}

test("who comes while a flush runs is covered by the next one, and all who came share it", async () => {
  const { flush, runs } = gated();
  let covered = 0;
  const first = flush.flush();
  const later = [flush.flush(), flush.flush()].map((one) => one.then(() => (covered += 1)));
  assert.equal(runs.length, 1);
  runs[0]?.resolve();
  await first;
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(covered, 0);
  assert.equal(runs.length, 2);
  runs[1]?.resolve();
  await Promise.all(later);
  assert.equal(covered, 2);
});

test("who flushes again as soon as its flush is done joins those who wait: two flushes never run at once", async () => {
  const { flush, runs } = gated();
  const again = flush.flush().then(() => flush.flush());
  const waiting = flush.flush();
  runs[0]?.resolve();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(runs.length, 2);
  runs[1]?.resolve();
  await waiting;
  await again;
  assert.equal(runs.length, 2);
  const later = flush.flush();
  runs[2]?.resolve();
  await later;
});

test("after a failure no flush succeeds any more", async () => {
  const { flush, runs } = gated();
  const first = assert.rejects(flush.flush(), { code: "disk.failing", outcome: "unknown" });
  const waiting = assert.rejects(flush.flush(), { code: "disk.failing" });
  runs[0]?.reject(Object.assign(new Error("EIO"), { code: "EIO" }));
  await first;
  await waiting;
  await assert.rejects(flush.flush(), { code: "disk.failing" });
  assert.equal(runs.length, 1);
});

test("a full disk is told as such", async () => {
  const flush = new SharedFlush(() => Promise.reject(Object.assign(new Error("full"), { code: "ENOSPC" })));
  await assert.rejects(flush.flush(), { code: "store.full", outcome: "unknown" });
});
