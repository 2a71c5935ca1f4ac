import assert from "node:assert/strict";
import { test } from "node:test";
import { environmentId } from "#kernel/ids.ts";
import type { Gap } from "#model/gap.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { clearGapsOf, listGaps, recordGap, replaceGaps } from "./gaps.ts";

const environment = environmentId("shop");
const unmapped: Gap = {
  code: "image.unmapped",
  severity: "lost",
  resource: { kind: "server", id: "i-1" },
  message: "no such image",
};
const note: Gap = { code: "operation.untranslated", severity: "note", operation: "ec2:X", message: "x" };

test("a gap seen again keeps its first time, and the worst comes first", async () => {
  const store = await openSqliteStore({ path: ":memory:" });
  await store.commit([recordGap(store, environment, note, 1), recordGap(store, environment, unmapped, 2)]);
  await store.commit([recordGap(store, environment, { ...note, message: "y" }, 9)]);
  assert.deepEqual(await listGaps(store, environment), [
    { ...unmapped, firstAt: 2, lastAt: 2 },
    { ...note, message: "y", firstAt: 1, lastAt: 9 },
  ]);
  assert.deepEqual(await listGaps(store, environmentId("other")), []);
});

test("assessed gaps go with their cause; those of operations stay", async () => {
  const store = await openSqliteStore({ path: ":memory:" });
  const operation: Gap = { ...note, code: "image.unmapped" };
  await store.commit([operation, unmapped].map((gap) => recordGap(store, environment, gap, 1)));
  const other: Gap = { ...unmapped, resource: { kind: "server", id: "i-2" } };
  await replaceGaps(store, environment, ["image.unmapped"], [other], 5);
  const left = await listGaps(store, environment);
  assert.deepEqual(
    left.map(({ resource, operation }) => resource?.id ?? operation),
    ["i-2", "ec2:X"],
  );
  await store.commit([clearGapsOf(store, environment, "server", "i-2")]);
  assert.equal((await listGaps(store, environment)).length, 1);
});
