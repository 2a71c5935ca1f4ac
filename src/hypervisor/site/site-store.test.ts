import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { id, openStore, recordOf, server, volume } from "./site.fixture.ts";

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "site-store-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

void test("what was told is there after a restart, with its dependants and its token", async (t) => {
  const path = join(folderOf(t), "site.json");
  const store = await openStore(path);
  let changes = 0;
  store.onChange(() => (changes += 1));
  await store.transact((draft) => {
    draft.insert(recordOf(server("srv-1")));
    draft.insert(recordOf(volume("vol-1", 2)));
    const spec = {
      volumeId: id("vol-1"),
      serverId: id("srv-1"),
      device: "/dev/sdf",
      deleteOnTermination: true,
    };
    draft.insert(recordOf({ kind: "volumeAttachment", id: id("vol-1@srv-1"), spec, tags: {} }));
  });
  assert.equal(changes, 1);
  const again = await openStore(path);
  assert.equal(again.book.byToken("srv-1")?.resource.id, "srv-1");
  assert.equal(again.book.get("server", "srv-1")?.privateIp, "192.0.2.1");
  await again.transact((draft) => draft.remove("server", "srv-1"));
  assert.deepEqual(Array.from((await openStore(path)).book.records()), [], "the volume ends with its server");
});

void test("a change that fails half-way changes nothing, nor does one that cannot be written", async (t) => {
  const path = join(folderOf(t), "site.json");
  const store = await openStore(path);
  await store.transact((draft) => draft.insert(recordOf(volume("vol-1", 2))));
  const before = readFileSync(path, "utf8");
  const halfWay = store.transact((draft) => {
    const record = draft.get("volume", "vol-1");
    if (record !== undefined) record.boot = 7;
    draft.insert(recordOf(volume("vol-2", 2)));
    throw new OperationalError("cloud.quota", "full");
  });
  await assert.rejects(halfWay, { code: "cloud.quota" });
  assert.equal(store.book.get("volume", "vol-1")?.boot, 1);
  assert.equal(store.book.get("volume", "vol-2"), undefined);
  // Where the new file would be written, a folder stands.
  mkdirSync(`${path}.new`);
  await assert.rejects(
    store.transact((draft) => draft.insert(recordOf(volume("vol-3", 2)))),
    (error: OperationalError) => error.code.startsWith("store."),
  );
  assert.equal(store.book.get("volume", "vol-3"), undefined);
  assert.equal(readFileSync(path, "utf8"), before);
});

void test("changes at once are one after the other", async (t) => {
  const path = join(folderOf(t), "site.json");
  const store = await openStore(path);
  await store.transact((draft) => draft.insert(recordOf(volume("vol-1", 1))));
  const raise = () =>
    store.transact((draft) => {
      const record = draft.get("volume", "vol-1");
      if (record !== undefined) record.boot += 1;
    });
  await Promise.all(Array.from({ length: 20 }, raise));
  assert.equal((await openStore(path)).book.get("volume", "vol-1")?.boot, 21);
});

void test("a damaged file, and one of another version, are told", async (t) => {
  const path = join(folderOf(t), "site.json");
  writeFileSync(path, '{"format":1,"rec');
  await assert.rejects(openStore(path), { code: "store.failing" });
  writeFileSync(path, '{"format":2,"records":[]}');
  await assert.rejects(openStore(path), { code: "store.version" });
});
