import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BufferPool } from "./buffer-pool.ts";
import { CoveredRanges } from "./covered-ranges.ts";
import { RangeLock } from "./range-lock.ts";

const range = fc.tuple(fc.nat(60), fc.nat(20)).map(([from, length]) => ({ from, to: from + length }));

test("ranges are added in any order, and none twice", () =>
  fc.assert(
    fc.property(fc.array(range, { maxLength: 30 }), (ranges) => {
      const covered = new CoveredRanges();
      const places = new Set<number>();
      for (const { from, to } of ranges) {
        const own = Array.from({ length: to - from }, (_, index) => from + index);
        const free = own.every((place) => !places.has(place));
        assert.equal(covered.add(from, to), free);
        if (free) for (const place of own) places.add(place);
        assert.equal(covered.bytes, places.size);
      }
    }),
  ));

test("an exclusive holder of a range is alone there, and everybody's turn comes", () =>
  fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(range, fc.boolean()), { maxLength: 30 }), async (wishes) => {
      const lock = new RangeLock();
      const holding = new Set<{ from: number; to: number; exclusive: boolean }>();
      await Promise.all(
        wishes.map(async ([{ from, to }, exclusive]) => {
          const release = await lock.acquire(from, to, exclusive);
          const own = { from, to, exclusive };
          for (const other of holding)
            if (other.from < to && from < other.to) assert.ok(!exclusive && !other.exclusive, "two at once");
          holding.add(own);
          await new Promise((resolve) => setImmediate(resolve));
          holding.delete(own);
          release();
        }),
      );
    }),
    { numRuns: 30 },
  ));

test("a pool gives buffers of the length asked for, never one to two, and holds no more than it may", () =>
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(300_000), fc.boolean()), { maxLength: 60 }), (wishes) => {
      const pool = new BufferPool(1_000_000);
      const inUse: Buffer[] = [];
      for (const [length, giveBack] of wishes) {
        const buffer = pool.take(length);
        assert.equal(buffer.length, length);
        if (length > 0)
          assert.ok(
            inUse.every((other) => other.buffer !== buffer.buffer),
            "given to two",
          );
        inUse.push(buffer);
        if (giveBack) pool.give(inUse.shift() ?? buffer);
      }
    }),
  ));
