import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Statement } from "./contract.ts";
import { RedoLog, decodePart, missingBatches, readRedoLog, redoBytes, redoCall } from "./redo-log.ts";

const owner = "0123456789abcdef";

function pathOf(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "understudy-redo-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, "store.db-redo");
}

function opened(t: TestContext, path: string, applied = 0): RedoLog {
  const log = RedoLog.open(path, owner, applied);
  t.after(() => log.close());
  return log;
}

const statement = (sql: string, ...parameters: readonly unknown[]): Statement => ({
  query: { sql, parameters },
  expectRows: 1,
});
const put = (n: number): readonly Statement[] => [
  statement("insert", n, `é "${n}"`, null),
  statement("update", "x".repeat(n), 0.5),
];
const rows = (n: number): readonly object[] => put(n).map(({ query }) => query);

/** Ordinals and what they say. */
const found = (path: string, applied = 0): readonly [number, readonly object[]][] =>
  readRedoLog(path, owner, applied).map(({ ordinal, statements }) => [ordinal, statements]);

test("what was written is read back, without what the database has", (t) => {
  const path = pathOf(t);
  assert.deepEqual(found(path), [], "no file, nothing to redo");
  const log = opened(t, path);
  assert.equal(statSync(path).size, redoBytes);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(log.write([put(1), put(2)]));
  assert.ok(log.write([put(700)]));
  assert.deepEqual(found(path), [
    [1, [...rows(1), ...rows(2)]],
    [2, rows(700)],
  ]);
  assert.deepEqual(found(path, 1), [[2, rows(700)]]);
  assert.deepEqual(found(path, 2), []);
  const texts: string[] = [];
  const first = decodePart(readFileSync(path).subarray(0, 512), texts);
  assert.deepEqual(texts, ["insert", "update"]);
  assert.deepEqual(redoCall(first).at(-1)?.query.parameters, [1]);
});

test("a log that starts over ends where its own records end", (t) => {
  const path = pathOf(t);
  const log = opened(t, path);
  for (const n of [1, 2, 3]) log.write([put(n)]);
  log.startOver();
  assert.deepEqual(found(path, 3), []);
  log.write([put(4)]);
  assert.deepEqual(found(path, 3), [[4, rows(4)]], "SQL is written out anew");
  const next = opened(t, path, 4);
  next.write([put(5)]);
  assert.deepEqual(found(path, 4), [[5, rows(5)]]);
});

test("a batch that has no room is not written, and the next one that has is", (t) => {
  const path = pathOf(t);
  const log = opened(t, path);
  const large = [statement("large", "x".repeat(redoBytes / 2))];
  assert.ok(log.write([large]));
  const { end } = log;
  assert.equal(log.write([[statement("new"), ...large]]), false);
  assert.equal(log.end, end);
  assert.ok(log.write([[statement("new")]]));
  assert.deepEqual(
    found(path).map(([, statements]) => statements.length),
    [1, 1],
  );
});

test("any bit of it flipped: what is damaged and acknowledged is told of, or it is the last record", (t) => {
  const path = pathOf(t);
  const log = opened(t, path);
  for (const n of [1, 2, 3]) log.write([put(n)]);
  const whole = readFileSync(path);
  const lastRecord = 2 * 512;
  let told = 0;
  for (let bit = 0; bit < 8 * log.end; bit += 1) {
    const at = bit >> 3;
    const damaged = Buffer.from(whole.subarray(0, log.end));
    damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << (bit & 7)), at);
    try {
      const ordinals = missingBatches(damaged, path, owner, 0).map(({ ordinal }) => ordinal);
      // Padding, or the last record, which nobody can tell from one that was being written when the power failed.
      assert.deepEqual(ordinals, at < lastRecord || ordinals.length === 3 ? [1, 2, 3] : [1, 2]);
    } catch (error) {
      assert.match(String(error), /is damaged at byte|belongs to another database/);
      assert.ok(at < lastRecord + 32);
      told += 1;
    }
  }
  assert.ok(told > 1_000);
});

test("cut off anywhere while it holds records, it is told of", (t) => {
  const path = pathOf(t);
  const log = opened(t, path);
  for (const n of [1, 2]) log.write([put(n)]);
  for (const length of [redoBytes - 1, 1_100, 600, 512]) {
    truncateSync(path, length);
    assert.throws(() => found(path), { code: "store.failing", message: new RegExp(`has ${length} bytes`) });
  }
});

test("what is no redo log at all is told of", (t) => {
  const path = pathOf(t);
  writeFileSync(path, Buffer.alloc(redoBytes, "rubbish"));
  assert.throws(() => found(path), { code: "store.failing", message: /is no redo log/ });
});

test("one whose room was being taken when the power failed is empty", (t) => {
  const path = pathOf(t);
  writeFileSync(path, Buffer.alloc(4096));
  assert.deepEqual(found(path), []);
  opened(t, path).write([put(1)]);
  assert.deepEqual(found(path), [[1, rows(1)]]);
});

test("a log of another database, or of a later one, is not taken", (t) => {
  const path = pathOf(t);
  const log = opened(t, path, 5);
  log.write([put(1)]);
  assert.deepEqual(found(path, 5).length, 1);
  assert.throws(() => readRedoLog(path, "fedcba9876543210", 5), {
    code: "store.failing",
    message: /belongs to another database/,
  });
  assert.throws(() => found(path, 4), { message: /begins with batch 6, and the database ends with batch 4/ });
});

test("what no record can hold, or touches another number of rows, is a bug", (t) => {
  const path = pathOf(t);
  const log = opened(t, path);
  assert.throws(
    () => log.write([[statement("never written")], [statement("insert", new Uint8Array(1))]]),
    /texts, numbers and nulls/,
  );
  assert.throws(() => log.write([[{ ...statement("insert"), expectRows: 2 }]]), /one row each/);
  log.write([put(1)]);
  log.write([put(2)]);
  assert.deepEqual(found(path), [
    [1, rows(1)],
    [2, rows(2)],
  ]);
});
