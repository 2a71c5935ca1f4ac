import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { storeError, voidsTransaction } from "./sqlite-errors.ts";

const sqlite = (errcode: number): Error =>
  Object.assign(new Error("said SQLite"), { errcode, errstr: `code ${errcode}` });
const system = (code: string): Error =>
  Object.assign(new Error("said the system"), { code, syscall: "open" });

/** Extended codes carry the primary one in their low byte: 1034 is a failed fsync, 4874 a full `-shm`. */
const cases = [
  { error: sqlite(13), code: "store.full", says: /free space/ },
  { error: sqlite(4874), code: "store.full", says: /free space/ },
  { error: sqlite(1034), code: "store.failing", says: /the disk under .* fails/ },
  { error: sqlite(11), code: "store.failing", says: /damaged/ },
  { error: sqlite(26), code: "store.failing", says: /damaged/ },
  { error: sqlite(5), code: "store.failing", says: /another process is writing/ },
  { error: sqlite(8), code: "store.failing", says: /write permission/ },
  { error: sqlite(14), code: "store.failing", says: /write permission/ },
  { error: sqlite(7), code: "store.failing", says: /memory/ },
  { error: sqlite(1555), code: "state.conflict", says: /said SQLite/ },
  { error: system("ENOSPC"), code: "store.full", says: /free space/ },
  { error: system("EROFS"), code: "store.failing", says: /write permission/ },
  { error: system("ENOTDIR"), code: "store.failing", says: /cannot be opened/ },
] as const;

for (const { error, code, says } of cases) {
  test(`${"errcode" in error ? "SQLite " : ""}${JSON.stringify(error)} is ${code}`, () => {
    const mapped = storeError(error, "/data/store.db", "unknown");
    assert.ok(isOperational(mapped, code), String(mapped));
    assert.match(mapped.message, says);
    assert.equal(mapped.outcome, code === "state.conflict" ? "not_applied" : "unknown");
    assert.equal(mapped.cause, error);
  });
}

test("a bug stays what it is", () => {
  const bug = sqlite(1);
  assert.equal(storeError(bug, "/data/store.db"), bug);
});

test("a failing disk voids the transaction, one statement's conflict does not", () => {
  assert.ok(voidsTransaction(sqlite(13)));
  assert.ok(voidsTransaction(sqlite(1034)));
  assert.ok(!voidsTransaction(sqlite(1555)));
  assert.ok(!voidsTransaction(sqlite(1)));
});
