import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import type { Statement } from "./contract.ts";
import { GroupCommit } from "./group-commit.ts";

const failing = new OperationalError("store.failing", "the disk fails", { outcome: "unknown" });

interface Flushes {
  readonly flush: () => Promise<void>;
  readonly waiting: PromiseWithResolvers<void>[];
}

function flushes(): Flushes {
  const waiting: PromiseWithResolvers<void>[] = [];
  return {
    waiting,
    flush: () => {
      const one = Promise.withResolvers<void>();
      waiting.push(one);
      return one.promise;
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(() => setImmediate(resolve)));
const nothing: readonly Statement[] = [];

test("nobody is told before the flush; calls that come meanwhile share the next one", async () => {
  const { flush, waiting } = flushes();
  const sizes: number[] = [];
  const told: string[] = [];
  const commits = new GroupCommit({
    run: (calls) => {
      sizes.push(calls.length);
      return calls.map(() => undefined);
    },
    flush,
  });
  const call = (name: string): Promise<void> => commits.commit(nothing).then(() => void told.push(name));
  const first = call("a");
  await turn();
  const others = [call("b"), call("c")];
  await turn();
  assert.deepEqual([sizes, told, waiting.length], [[1], [], 1]);
  waiting[0]?.resolve();
  await first;
  await turn();
  assert.deepEqual([sizes, told, waiting.length], [[1, 2], ["a"], 2]);
  waiting[1]?.resolve();
  await Promise.all(others);
  assert.deepEqual(told, ["a", "b", "c"]);
});

test("after a flush that failed nothing is recorded any more", async () => {
  const { flush, waiting } = flushes();
  let batches = 0;
  let reported = 0;
  const commits = new GroupCommit({
    run: (calls) => {
      batches += 1;
      return calls.map(() => undefined);
    },
    flush,
    onCommit: () => (reported += 1),
  });
  const first = commits.commit(nothing);
  await turn();
  const meanwhile = commits.commit(nothing);
  waiting[0]?.reject(failing);
  await assert.rejects(first, failing);
  await assert.rejects(meanwhile, { code: "store.failing" });
  await assert.rejects(commits.commit(nothing), { code: "store.failing" });
  await commits.close();
  assert.deepEqual([batches, reported, waiting.length], [1, 0, 1]);
});

test("a flush that was made at once lets its callers know in the same turn; one that fails is the last", async () => {
  let broken = false;
  let flushed = 0;
  const commits = new GroupCommit({
    run: (calls) => calls.map(() => undefined),
    flush: () => {
      if (broken) throw failing;
      flushed += 1;
    },
  });
  await Promise.all([commits.commit(nothing), commits.commit(nothing)]);
  assert.equal(flushed, 1);
  broken = true;
  await assert.rejects(commits.commit(nothing), failing);
  broken = false;
  await assert.rejects(commits.commit(nothing), { code: "store.failing" });
  assert.equal(flushed, 1);
  await commits.close();
});

test("while commits are kept back nothing runs, and what was asked for runs when they are let go", async () => {
  const { flush, waiting } = flushes();
  let batches = 0;
  const commits = new GroupCommit({
    run: (calls) => {
      batches += 1;
      return calls.map(() => undefined);
    },
    flush,
  });
  const first = commits.commit(nothing);
  await turn();
  const pausing = commits.pause();
  const second = commits.commit(nothing);
  waiting[0]?.resolve();
  await first;
  const paused = await pausing;
  await turn();
  assert.equal(batches, 1, "the one under way ended, the next one waits");
  paused[Symbol.dispose]();
  await turn();
  assert.equal(batches, 2);
  waiting[1]?.resolve();
  await second;
  await commits.close();
});

test("closing waits for the flush under way, and for the calls behind it", async () => {
  const { flush, waiting } = flushes();
  const commits = new GroupCommit({ run: (calls) => calls.map(() => undefined), flush });
  const first = commits.commit(nothing);
  await turn();
  const second = commits.commit(nothing);
  let closed = false;
  const closing = commits.close().then(() => void (closed = true));
  waiting[0]?.resolve();
  await first;
  await turn();
  assert.equal(closed, false);
  waiting[1]?.resolve();
  await Promise.all([second, closing]);
});
