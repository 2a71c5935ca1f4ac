import assert from "node:assert/strict";
import { test } from "node:test";
import { type Hold, type LockKeys, ResourceLocks } from "./resource-locks.ts";

const exclusive = (...keys: string[]): LockKeys => ({ shared: [], exclusive: keys });
const shared = (...keys: string[]): LockKeys => ({ shared: keys, exclusive: [] });

function now(hold: Hold | Promise<Hold>): Hold {
  assert.ok(!(hold instanceof Promise), "the lock should be free");
  return hold;
}

function later(hold: Hold | Promise<Hold>): Promise<Hold> {
  assert.ok(hold instanceof Promise, "the lock should be taken");
  return hold;
}

test("independent keys do not wait for each other, the same key does", async () => {
  const locks = new ResourceLocks();
  const first = now(locks.acquire(exclusive("a")));
  now(locks.acquire(exclusive("b")));
  const second = later(locks.acquire(exclusive("a")));
  assert.equal(locks.waiting, 1);
  first.release();
  (await second).release();
  assert.equal(locks.waiting, 0);
});

test("readers share; a writer waits for them, and later readers wait for the writer", async () => {
  const locks = new ResourceLocks();
  const readers = [now(locks.acquire(shared("a"))), now(locks.acquire(shared("a")))];
  const order: string[] = [];
  const writer = later(locks.acquire(exclusive("a"))).then((hold) => {
    order.push("writer");
    return hold;
  });
  const late = later(locks.acquire(shared("a"))).then((hold) => {
    order.push("late reader");
    return hold;
  });
  for (const hold of readers) hold.release();
  (await writer).release();
  (await late).release();
  assert.deepEqual(order, ["writer", "late reader"]);
  assert.equal(locks.size, 0);
});

test("crossing key orders cannot deadlock, since a command joins all its queues in one step", async () => {
  const locks = new ResourceLocks();
  const first = now(locks.acquire(exclusive("a", "b")));
  const second = later(locks.acquire(exclusive("b", "a")));
  const third = later(locks.acquire({ exclusive: ["a"], shared: ["b"] }));
  first.release();
  (await second).release();
  (await third).release();
  assert.equal(locks.size, 0);
});

test("whoever gives up leaves every queue and lets the next ones go", async () => {
  const locks = new ResourceLocks();
  const first = now(locks.acquire(shared("a", "b")));
  const control = new AbortController();
  const gone = later(locks.acquire(exclusive("a", "b"), () => control.signal));
  const reader = later(locks.acquire(shared("a")));
  control.abort(new Error("the caller left"));
  await assert.rejects(gone, /the caller left/);
  (await reader).release();
  first.release();
  assert.equal(locks.size, 0);
  assert.equal(locks.waiting, 0);
});

test("a key named twice, or as read and written, is held once, exclusively", async () => {
  const locks = new ResourceLocks();
  const first = now(locks.acquire({ exclusive: ["a", "a"], shared: ["a"] }));
  const second = later(locks.acquire(shared("a")));
  first.release();
  first.release();
  (await second).release();
  assert.equal(locks.size, 0);
});
