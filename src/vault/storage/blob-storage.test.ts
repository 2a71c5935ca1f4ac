import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { faultyStorage } from "./faulty-storage.ts";
import { openFolderStorage } from "./folder-storage.ts";
import { memoryStorage } from "./memory-storage.ts";
import { storageConformance } from "./storage-conformance.ts";

const scratch = (): Promise<string> => mkdtemp(join(tmpdir(), "vault-storage-"));

storageConformance("memory", async () => ({ storage: memoryStorage(), dispose: async () => {} }));

storageConformance("faulty over memory", async () => ({
  storage: faultyStorage(memoryStorage()),
  dispose: async () => {},
}));

storageConformance("folder", async () => {
  const path = await scratch();
  return { storage: await openFolderStorage(path), dispose: () => rm(path, { recursive: true }) };
});

test("folder: what a dead process left half written is not seen, and goes after a day", async () => {
  const path = await scratch();
  try {
    const storage = await openFolderStorage(path);
    const [old, young] = [join(path, ".incoming", "old"), join(path, ".incoming", "young")];
    await writeFile(old, "half");
    await writeFile(young, "half");
    await utimes(old, new Date(0), new Date(0));
    assert.deepEqual(await Array.fromAsync(storage.list("")), []);
    await (await openFolderStorage(path)).close();
    assert.deepEqual(await readdir(join(path, ".incoming")), ["young"]);
  } finally {
    await rm(path, { recursive: true });
  }
});

test("folder: what another process deleted or made anew is seen, also where the file was held open", async () => {
  const path = await scratch();
  try {
    const [ours, theirs] = [await openFolderStorage(path), await openFolderStorage(path)];
    await ours.put("a", [Buffer.from("old")]);
    assert.equal((await ours.get("a")).toString(), "old");
    await theirs.delete("a");
    await assert.rejects(ours.get("a"), (error) => isOperational(error, "not_found"));
    await theirs.put("a", [Buffer.from("new")]);
    assert.equal((await ours.get("a")).toString(), "new");
    await Promise.all([ours.close(), theirs.close()]);
  } finally {
    await rm(path, { recursive: true });
  }
});

test("folder: a put that cannot be written changes nothing and says so", async () => {
  const path = await scratch();
  try {
    const storage = await openFolderStorage(path);
    await rm(join(path, ".incoming"), { recursive: true });
    await symlink("/proc", join(path, ".incoming"));
    await assert.rejects(
      storage.put("a", [Buffer.from("x")]),
      (error) => isOperational(error) && error.outcome === "not_applied",
    );
    assert.deepEqual(await Array.fromAsync(storage.list("")), []);
  } finally {
    await rm(path, { recursive: true });
  }
});

test("faulty: a call fails before or after it was done, and is counted", async () => {
  const inner = memoryStorage();
  const storage = faultyStorage(inner, (_, number) =>
    number === 1 ? "before" : number === 2 ? "after" : "none",
  );
  for (const name of ["a", "b"]) {
    await assert.rejects(
      storage.put(name, []),
      (error) => isOperational(error) && error.outcome === "unknown",
    );
  }
  assert.deepEqual([...inner.objects.keys()], ["b"]);
  assert.deepEqual([storage.total, storage.calls.put], [2, 2]);
});
