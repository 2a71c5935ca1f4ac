import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { ResourceLocks } from "./resource-locks.ts";

const keys = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d"), { maxLength: 3 });
const command = fc.record({
  exclusive: keys,
  shared: keys,
  abandon: fc.boolean(),
  turns: fc.nat({ max: 4 }),
});

test("any mix of commands: writers are alone, conflicting ones keep arrival order, all finish, nothing is left", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 30 }), async (commands) => {
      const locks = new ResourceLocks();
      const writers = new Map<string, number>();
      const readers = new Map<string, number>();
      const lastStarted = new Map<string, number>();
      const add = (map: Map<string, number>, key: string, by: number): void => {
        map.set(key, (map.get(key) ?? 0) + by);
      };
      const run = async (index: number): Promise<void> => {
        const { exclusive, shared, abandon, turns } = commands[index] ?? assert.fail();
        const control = new AbortController();
        const pending = locks.acquire({ exclusive, shared }, () => control.signal);
        if (abandon) control.abort(new Error("gone"));
        let hold;
        try {
          hold = await pending;
        } catch {
          return;
        }
        const onlyShared = shared.filter((key) => !exclusive.includes(key));
        for (const key of exclusive) {
          assert.equal(writers.get(key) ?? 0, 0, `two writers of ${key}`);
          assert.equal(readers.get(key) ?? 0, 0, `a writer among readers of ${key}`);
          assert.ok((lastStarted.get(key) ?? -1) < index, `overtaken on ${key}`);
          lastStarted.set(key, index);
          add(writers, key, 1);
        }
        for (const key of onlyShared) {
          assert.equal(writers.get(key) ?? 0, 0, `a reader beside the writer of ${key}`);
          add(readers, key, 1);
        }
        for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
        for (const key of exclusive) add(writers, key, -1);
        for (const key of onlyShared) add(readers, key, -1);
        hold.release();
      };
      await Promise.all(commands.map((_, index) => run(index)));
      assert.equal(locks.size, 0);
      assert.equal(locks.waiting, 0);
    }),
    { numRuns: 300 },
  );
});
