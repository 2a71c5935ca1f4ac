import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makeFolder, syncFolder } from "./durable-file.ts";

test("a folder is durable with each parent that was made for it", async (t) => {
  const base = mkdtempSync(join(tmpdir(), "understudy-folder-"));
  t.after(() => rmSync(base, { recursive: true }));
  const synced: string[] = [];
  const sync = async (folder: string): Promise<void> => {
    await syncFolder(folder);
    synced.push(folder);
  };
  const deep = join(base, "a", "b", "c");
  await makeFolder(deep, sync);
  assert.deepEqual(synced, [join(base, "a", "b"), join(base, "a"), base]);
  assert.equal(statSync(deep).mode & 0o777, 0o700);
  // There already: one that was killed may have made it and no more.
  await makeFolder(deep, sync);
  assert.deepEqual(synced.slice(3), [join(base, "a", "b")]);
  writeFileSync(join(base, "file"), "");
  await assert.rejects(makeFolder(join(base, "file", "x")), { code: "store.failing" });
});
