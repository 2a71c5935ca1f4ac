import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { defaultRetention, planRetention } from "./plan-retention.ts";

const minute = 60_000;
const day = 24 * 60 * minute;
const start = Date.UTC(2026, 0, 1);

test("run every few minutes for two years, what is left thins out as the policy says", () => {
  let points: { id: string; timeMs: number }[] = [];
  let now = start;
  let most = 0;
  for (let n = 0; now < start + 730 * day; n += 1) {
    now += 47 * minute;
    points.push({ id: String(n), timeMs: now });
    points = planRetention(points, defaultRetention, now).keep.map(({ point }) => point);
    most = Math.max(most, points.length);
  }
  assert.ok(most < 80, `${most} points at most`);
  const ages = points.map(({ timeMs }) => (now - timeMs) / day);
  const within = (from: number, to: number): number => ages.filter((age) => age >= from && age < to).length;
  assert.ok(within(0, 1) >= 24, "hourly for a day");
  assert.ok(within(1, 14) >= 12, "daily for two weeks");
  assert.ok(within(14, 62) >= 6, "weekly for two months");
  assert.ok(within(62, 366) >= 9, "monthly for a year");
  assert.ok(within(366, 3_000) >= 1, "yearly");
});

test("the newest stays, whatever the policy; the future is no reason to delete", () => {
  const points = [
    { id: "old", timeMs: start },
    { id: "older", timeMs: start - day },
  ];
  const nothing = { keepAllMs: 0, rules: [] };
  const plan = planRetention(points, nothing, start + 1000 * day);
  assert.deepEqual(
    plan.keep.map(({ point, because }) => [point.id, because]),
    [["old", "newest"]],
  );
  assert.deepEqual(
    plan.remove.map(({ id }) => id),
    ["older"],
  );
  assert.deepEqual(planRetention(points, nothing, start - 10 * day).remove, []);
  assert.deepEqual(planRetention([], nothing, start), { keep: [], remove: [] });
});

test("planning twice is planning once, and nothing is both kept and removed", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 400 * day })),
      fc.integer({ min: 0, max: 500 * day }),
      (times, at) => {
        const points = times.map((time, n) => ({ id: String(n), timeMs: start + time }));
        const { keep, remove } = planRetention(points, defaultRetention, start + at);
        assert.equal(keep.length + remove.length, points.length);
        const again = planRetention(
          keep.map(({ point }) => point),
          defaultRetention,
          start + at,
        );
        assert.deepEqual(again.remove, []);
      },
    ),
  );
});
