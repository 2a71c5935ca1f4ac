import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type JobWatch, planWatch, stuckForMs, watchJob } from "./capture-watch.ts";

test("a write that is never answered is seen within the limit, whenever it began", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 200, max: 10_000 }),
      fc.float({ min: 0, max: 1, noNaN: true }),
      fc.integer({ min: 1, max: 1 << 20 }),
      (limitMs, phase, bytes) => {
        const { everyMs, stuckMs } = planWatch(limitMs);
        // Looks fall at whole multiples; the write begins somewhere between two of them.
        const beganAt = everyMs * phase;
        let watch: JobWatch | null = null;
        for (let now = 0; ; now += everyMs) {
          watch = watchJob(watch, { offset: 0, length: now >= beganAt ? bytes : 0 }, now);
          if (stuckForMs(watch, now) >= stuckMs) {
            assert.ok(now - beganAt <= limitMs * 0.9, `seen after ${now - beganAt} of ${limitMs} ms`);
            return;
          }
          assert.ok(now <= limitMs * 2, "never seen");
        }
      },
    ),
  );
});

test("a target that answers, however busy, is not given up", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 200 }), (steps) => {
      const { everyMs, stuckMs } = planWatch(1000);
      let watch: JobWatch | null = null;
      let offset = 0;
      steps.forEach((step, index) => {
        // Something is in flight at every look, and something else has been answered since.
        offset += step;
        watch = watchJob(watch, { offset, length: offset + 4096 }, index * everyMs);
        assert.ok(stuckForMs(watch, index * everyMs) < stuckMs);
      });
    }),
  );
});

test("a job with nothing to do waits for nobody", () => {
  const first = watchJob(null, { offset: 5, length: 5 }, 0);
  assert.equal(stuckForMs(watchJob(first, { offset: 5, length: 5 }, 1e9), 1e9), 0);
});
