import assert from "node:assert/strict";
import { test } from "node:test";
import type { DiskSnapshot } from "#cloud/snapshot-source.ts";
import {
  membersTag,
  planSnapshots,
  type SnapshotMember,
  type SnapshotsSeen,
  setTag,
} from "./plan-snapshots.ts";

const minute = 60_000;
const nowMs = 100 * minute;

function snapshot(
  id: string,
  set: string,
  volumeId: string,
  agoMs: number,
  more: Partial<DiskSnapshot> & { readonly members?: number } = {},
): DiskSnapshot {
  const { members = 2, ...rest } = more;
  const tags = { [setTag]: set, [membersTag]: String(members) };
  const base = { id, volumeId, startedAt: nowMs - agoMs, sizeBytes: 1024, state: "complete" as const };
  return { ...base, progress: 1, tags, ...rest };
}

function member(
  volumeId: string,
  id: string | null,
  whole = true,
  base: string | null = null,
): SnapshotMember {
  const image = id === null ? null : { id, atMs: 0, base, throughBytes: whole ? 1024 : 512 };
  return { volumeId, image, whole };
}

function plan(
  members: readonly SnapshotMember[],
  snapshots: readonly DiskSnapshot[],
  more: Partial<SnapshotsSeen> = {},
) {
  const seen = { members, snapshots, nowMs, everyMs: 10 * minute, listingLagMs: 30_000, ...more };
  const { remove, next } = planSnapshots(seen);
  return { remove: remove.map(({ id }) => id).sort(), next };
}

const pair = (set: string, agoMs: number): readonly DiskSnapshot[] => [
  snapshot(`${set}-a`, set, "a", agoMs),
  snapshot(`${set}-b`, set, "b", agoMs),
];

void test("a set is taken at first, and when the interval has passed since the last one", () => {
  assert.deepEqual(plan([member("a", null)], []).next, { do: "take" });
  const current = [member("a", "one-a"), member("b", "one-b")];
  assert.deepEqual(plan(current, pair("one", 11 * minute)).next, { do: "take" });
  assert.deepEqual(plan(current, pair("one", 4 * minute)).next, { do: "wait", untilMs: nowMs + 6 * minute });
  const skewed = plan(current, pair("one", 11 * minute), { takenAtMs: nowMs - minute });
  assert.deepEqual(
    skewed.next,
    { do: "wait", untilMs: nowMs + 9 * minute },
    "whatever the cloud's clock says",
  );
});

void test("what changed since the last whole image is copied; then only the new set stays", () => {
  const members = [member("a", "one-a"), member("b", "two-b", false, "one-b")];
  const both = [...pair("one", 20 * minute), ...pair("two", minute)];
  const { remove, next } = plan(members, both);
  assert.deepEqual(remove, [], "both are bases still");
  assert.ok(next.do === "copy");
  assert.deepEqual(
    next.copies.map(({ volumeId, base, fromBytes, reason }) => [volumeId, base, fromBytes, reason]),
    [
      ["a", "one-a", 0, "changes"],
      ["b", "one-b", 512, "changes"],
    ],
  );
  const whole = [member("a", "two-a", true, "one-a"), member("b", "two-b", true, "one-b")];
  assert.deepEqual(plan(whole, both).remove, ["one-a", "one-b"]);
});

void test("a set that came to nothing is removed, but not while a listing may lag behind", () => {
  const members = [member("a", "one-a"), member("b", "one-b")];
  const half = (agoMs: number) => [...pair("one", 5 * minute), snapshot("two-a", "two", "a", agoMs)];
  assert.deepEqual(plan(members, half(1000)), { remove: [], next: { do: "wait", untilMs: null } });
  assert.deepEqual(plan(members, half(2 * minute)).remove, ["two-a"]);
  const failed = [...pair("two", 1000)].map((one, at) =>
    at === 0 ? { ...one, state: "failed" as const } : one,
  );
  assert.deepEqual(plan(members, [...pair("one", 5 * minute), ...failed]).remove, ["two-a", "two-b"]);
});

void test("without its base a snapshot comes as a whole, and one that was begun is ended first", () => {
  const lost = plan([member("a", "gone"), member("b", "one-b")], pair("two", minute));
  assert.ok(lost.next.do === "copy");
  assert.deepEqual(
    lost.next.copies.map(({ volumeId, base, reason }) => [volumeId, base, reason]),
    [
      ["a", null, "base_lost"],
      ["b", null, "base_lost"],
    ],
  );
  const begun = [member("a", "one-a", false), member("b", "zero-b")];
  const { next } = plan(begun, [...pair("one", 15 * minute), ...pair("two", minute)]);
  assert.ok(next.do === "copy");
  assert.deepEqual(
    next.copies.map(({ snapshot: { id } }) => id),
    ["one-a", "one-b"],
  );
});

void test("nothing is copied of a set that is not complete yet, and a wanted set is taken at once", () => {
  const pending = pair("two", 1000).map((one) => ({ ...one, state: "pending" as const }));
  const members = [member("a", "one-a"), member("b", "one-b")];
  assert.deepEqual(plan(members, [...pair("one", minute), ...pending]).next, { do: "wait", untilMs: null });
  assert.deepEqual(plan(members, pair("one", minute), { wantedSet: "x" }).next, { do: "take" });
  const there = [member("a", "x-a"), member("b", "x-b")];
  assert.equal(plan(there, pair("x", 1000), { wantedSet: "x" }).next.do, "wait");
});

void test("a volume that was added since is no reason to wait for the interval", () => {
  const members = [member("a", "one-a"), member("b", "one-b"), member("c", null)];
  assert.deepEqual(plan(members, pair("one", minute)).next, { do: "take" });
});
