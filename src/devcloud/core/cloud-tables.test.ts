import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { CloudTables } from "./cloud-tables.ts";
import { RecordFile } from "./record-file.ts";
import type { KeyPairRecord } from "./records.ts";

const key = (id: string, name = id): KeyPairRecord => ({
  id,
  name,
  createdAt: 1,
  tags: {},
  extra: {},
  publicKey: "",
  fingerprint: "",
  type: "rsa",
});

void test("a transaction that throws leaves records and indexes as they were", () => {
  const data = new CloudTables(null);
  data.transact(() => data.tables.keyPair.put(key("a", "one")));
  assert.throws(
    () =>
      data.transact(() => {
        data.tables.keyPair.put(key("a", "two"));
        data.tables.keyPair.put(key("b", "three"));
        data.tables.keyPair.delete("a");
        throw new Error("no");
      }),
    /no/,
  );
  assert.deepEqual([...data.tables.keyPair.values()], [key("a", "one")]);
  assert.equal(data.tables.keyPair.countBy("name", "one"), 1);
  assert.equal(data.tables.keyPair.countBy("name", "two"), 0);
  assert.equal(data.tables.keyPair.countBy("name", "three"), 0);
});

void test("what durable() promised is read again, in order of creation", async () => {
  const directory = mkdtempSync(join(tmpdir(), "devcloud-tables-"));
  try {
    const path = join(directory, "cloud.db");
    const data = new CloudTables(new RecordFile(path));
    data.transact(() => ["c", "a", "b"].map((id) => data.tables.keyPair.put(key(id))));
    await data.durable();
    data.transact(() => {
      data.tables.keyPair.delete("a");
      data.tables.keyPair.put(key("c", "renamed"));
    });
    assert.throws(() => new RecordFile(path), /another devcloud uses/);
    assert.equal(statSync(path).mode & 0o077, 0);
    data.close();
    const again = new CloudTables(new RecordFile(path));
    assert.deepEqual(
      Array.from(again.tables.keyPair.values(), (each) => each.name),
      ["renamed", "b"],
    );
    again.close();
  } finally {
    rmSync(directory, { recursive: true });
  }
});

void test("a disk that refuses keeps every answer back until it takes the change", async () => {
  let full = true;
  const written: string[] = [];
  const file = {
    load: () => [],
    write: (records: Iterable<{ id: string }>) => {
      if (full) throw new Error("disk full");
      for (const record of records) written.push(record.id);
    },
    close: () => {},
  };
  const data = new CloudTables(file as unknown as RecordFile);
  data.transact(() => data.tables.keyPair.put(key("a")));
  await assert.rejects(data.durable(), /disk full/);
  await assert.rejects(data.durable(), /disk full/);
  full = false;
  await data.durable();
  assert.deepEqual(written, ["a"]);
});
