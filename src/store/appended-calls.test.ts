import assert from "node:assert/strict";
import { closeSync, copyFileSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isOperational } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { until } from "#testing/until.ts";
import { AppendedCalls } from "./appended-calls.ts";
import type { Statement, Store } from "./contract.ts";
import { GroupCommit } from "./group-commit.ts";
import { type SqliteStoreOptions, openSqliteStore } from "./open-sqlite-store.ts";
import { RedoLog, redoBytes } from "./redo-log.ts";

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "understudy-appended-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function opened(
  t: TestContext,
  path: string,
  options: Partial<SqliteStoreOptions> = {},
): Promise<Store> {
  const store = await openSqliteStore({ path, serving: true, ...options });
  t.after(() => store.close());
  return store;
}

function put(store: Store, site: string, data = "x"): Statement {
  return { query: store.db.insertInto("catalogue").values({ site, data, at: 1 }).compile(), expectRows: 1 };
}

const append = (store: Store, ...statements: readonly Statement[]): Promise<boolean> =>
  store.append(statements, store.commits());

async function sites(store: Store): Promise<string[]> {
  await store.showAppended();
  const rows = await store.db.selectFrom("catalogue").select("site").orderBy("site").execute();
  return rows.map((row) => row.site);
}

/** What a power failure leaves at worst: of SQLite's files what there was at the last commit, of the redo log all that was flushed. */
function afterPowerFailure(t: TestContext, path: string, before: string): string {
  const left = join(directory(t), "store.db");
  for (const suffix of ["", "-wal"]) {
    if (existsSync(before + suffix)) copyFileSync(before + suffix, left + suffix);
  }
  copyFileSync(`${path}-redo`, `${left}-redo`);
  return left;
}

function snapshot(t: TestContext, path: string): string {
  const at = join(directory(t), "store.db");
  for (const suffix of ["", "-wal"]) copyFileSync(path + suffix, at + suffix);
  return at;
}

test("what was appended is seen by whoever asks for it, and soon by everybody", async (t) => {
  const store = await opened(t, join(directory(t), "store.db"));
  const shown: number[] = [];
  const later = new Promise<void>((resolve) => {
    store.onShown(() => resolve());
  });
  assert.equal(await append(store, put(store, "a"), put(store, "b")), false);
  await later;
  shown.push((await store.db.selectFrom("catalogue").selectAll().execute()).length);
  assert.deepEqual(shown, [2]);
  await Promise.all(["c", "d", "e"].map((site) => append(store, put(store, site))));
  assert.deepEqual(await sites(store), ["a", "b", "c", "d", "e"]);
});

test("what was appended outlives the database's own log", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await opened(t, path);
  await store.commit([put(store, "first")]);
  const before = snapshot(t, path);
  for (const site of ["a", "b", "c"]) await append(store, put(store, site));
  // In the database, and not flushed there.
  await store.showAppended();
  for (const site of ["d", "e"]) await append(store, put(store, site));
  const left = afterPowerFailure(t, path, before);
  const again = await opened(t, left);
  assert.deepEqual(await sites(again), ["a", "b", "c", "d", "e", "first"]);
  await append(again, put(again, "f"));
  await again.close();
  const third = await opened(t, left, { serving: false });
  assert.deepEqual(await sites(third), ["a", "b", "c", "d", "e", "f", "first"], "none of them twice");
});

test("a reader of another process sees what was durable when it came, or is told what to do", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await opened(t, path);
  await store.commit([put(store, "first")]);
  const before = snapshot(t, path);
  for (let n = 0; n < 20; n += 1) {
    await append(store, put(store, `s${n}`));
    const reader = await openSqliteStore({ path, readOnly: true });
    assert.equal((await sites(reader)).length, n + 2);
    await reader.close();
  }
  const left = afterPowerFailure(t, path, before);
  await assert.rejects(openSqliteStore({ path: left, readOnly: true }), {
    code: "store.failing",
    message: /has not got the last commands yet.*start the engine once/,
  });
  await (await openSqliteStore({ path: left })).close();
  const reader = await openSqliteStore({ path: left, readOnly: true });
  assert.equal((await sites(reader)).length, 21);
  await reader.close();
});

test("a database that is older than its redo log is not opened, and says why", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await opened(t, path);
  await store.commit([put(store, "first")]);
  const before = snapshot(t, path);
  await append(store, put(store, "a"));
  await store.commit([put(store, "b")]);
  await append(store, put(store, "c"));
  const left = afterPowerFailure(t, path, before);
  await assert.rejects(openSqliteStore({ path: left }), {
    code: "store.failing",
    message: /begins with batch 2, and the database ends with batch 0: acknowledged commands are missing/,
  });
});

test("a database whose redo log is missing is not opened, and an empty log says that nothing is lost", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await openSqliteStore({ path, serving: true });
  await append(store, put(store, "a"));
  await store.close();
  rmSync(`${path}-redo`);
  for (const options of [{ path }, { path, serving: true }, { path, readOnly: true }]) {
    await assert.rejects(openSqliteStore(options), {
      code: "store.failing",
      message: /store\.db-redo is missing: .* make an empty one in its place to go on/,
    });
    assert.ok(!existsSync(`${path}-redo`), "nothing was made in its place");
  }
  writeFileSync(`${path}-redo`, "");
  const again = await opened(t, path);
  assert.equal((await sites(again)).length, 1);
  await append(again, put(again, "b"));
  await again.showAppended();
  assert.equal((await sites(again)).length, 2);
});

test("a statement that is no longer sure is checked", async (t) => {
  const store = await opened(t, join(directory(t), "store.db"));
  const since = store.commits();
  assert.equal(await store.append([put(store, "a")], since), false);
  const committed = store.commit([put(store, "b")]);
  const late = store.append([put(store, "b")], since);
  await committed;
  await assert.rejects(late, { code: "state.conflict" });
  assert.equal(await store.append([put(store, "c")], undefined), true);
  await assert.rejects(store.append([put(store, "c")], undefined), { code: "state.conflict" });
  assert.deepEqual(await sites(store), ["a", "b", "c"]);
});

test("commits and appended calls take effect in the order in which they were asked for", async (t) => {
  const store = await opened(t, join(directory(t), "store.db"));
  await store.commit([put(store, "s", "")]);
  const add = (letter: string): Statement => ({
    query: {
      sql: "update catalogue set data = data || ? where site = 's'",
      parameters: [letter],
    },
    expectRows: 1,
  });
  const asked: Promise<unknown>[] = [];
  let text = "";
  for (let n = 0; n < 2_000; n += 1) {
    const letter = String.fromCodePoint(97 + (n % 26));
    text += letter;
    asked.push(n % 97 === 0 ? store.commit([add(letter)]) : append(store, add(letter)));
    if (n % 41 === 0) await asked.at(-1);
  }
  await Promise.all(asked);
  await store.showAppended();
  assert.equal((await store.db.selectFrom("catalogue").select("data").executeTakeFirstOrThrow()).data, text);
});

test("a redo log that is full starts over", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await opened(t, path);
  const data = "x".repeat(1_000_000);
  const seen: boolean[] = [];
  for (let n = 0; n < 40; n += 1) seen.push(await append(store, put(store, `s${n}`, data)));
  assert.equal(
    seen.filter(Boolean).length,
    2,
    "those whose batch had no room went straight into the database",
  );
  assert.equal(statSync(`${path}-redo`).size, redoBytes);
  assert.equal((await sites(store)).length, 40);
});

/** As another process's transaction would, for longer than this one waits or not. */
function locked(path: string): { release(): void } {
  const other = new DatabaseSync(path);
  other.exec("begin immediate");
  return {
    release: () => {
      other.exec("rollback");
      other.close();
    },
  };
}

const visible = async (store: Store): Promise<number> =>
  (await store.db.selectFrom("catalogue").select("site").execute()).length;

test("what came while the database followed slowly is brought over without being asked for", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await opened(t, path);
  const lock = locked(path);
  await append(store, put(store, "a"));
  await sleep(100);
  await append(store, put(store, "b"));
  await sleep(200);
  assert.equal(await visible(store), 0);
  lock.release();
  await until("both records", async () => (await visible(store)) === 2 || undefined);
});

test("a failure that passes by itself needs nobody", async (t) => {
  const path = join(directory(t), "store.db");
  const lines: string[] = [];
  const log = {
    ...silentLog,
    error: (_fields: object, message: string) => void lines.push(message),
    info: (_fields: object, message: string) => void lines.push(message),
  };
  const store = await opened(t, path, { log });
  const lock = locked(path);
  await append(store, put(store, "a"));
  await until("the failure", () => lines.length > 0 || undefined);
  await assert.rejects(append(store, put(store, "b")), { code: "store.failing" });
  lock.release();
  await until("the record", async () => (await visible(store)) === 1 || undefined);
  assert.deepEqual(lines, [
    "the database cannot take what is in the redo log",
    "the database takes what is in the redo log again",
  ]);
  assert.equal(await append(store, put(store, "c")), false);
});

test("after a write of the redo log that failed nothing more is recorded", async (t) => {
  const path = join(directory(t), "store.db");
  const store = await opened(t, path);
  const redo = RedoLog.open(`${path}-redo`, "0123456789abcdef", 0);
  const broken = await AppendedCalls.open(
    { path, maxPages: undefined, checkpointPages: 1_000 },
    { redo, flush: () => undefined, onShown: () => undefined, log: silentLog },
  );
  closeSync(redo.file);
  let ran = 0;
  const commits = new GroupCommit({
    appended: broken,
    run: (calls) => {
      ran += 1;
      return calls.map(() => undefined);
    },
  });
  await assert.rejects(commits.append([put(store, "a")], 0), { code: "store.failing", outcome: "unknown" });
  await assert.rejects(commits.commit([put(store, "a")]), { code: "store.failing" });
  assert.equal(ran, 0);
  await commits.close();
});

test("while the database has no room nothing more is acknowledged, and what was is not lost", async (t) => {
  const path = join(directory(t), "store.db");
  const lines: string[] = [];
  const log = { ...silentLog, error: (_fields: object, message: string) => void lines.push(message) };
  const store = await opened(t, path, { maxPages: 80, log });
  const large = "x".repeat(200_000);
  await append(store, put(store, "a", large));
  // Durable, and more than the database may hold.
  await append(store, put(store, "b", large));
  await assert.rejects(sites(store), { code: "store.full" });
  for (const refused of [append(store, put(store, "c")), store.commit([put(store, "d")])]) {
    await assert.rejects(
      refused,
      (error) => isOperational(error, "store.full") && error.outcome === "not_applied",
    );
  }
  assert.ok(lines.includes("the database cannot take what is in the redo log"));
  await store.close();
  await assert.rejects(openSqliteStore({ path, maxPages: 80 }), {
    code: "store.full",
    outcome: "not_applied",
  });
  const roomy = await opened(t, path);
  assert.deepEqual(await sites(roomy), ["a", "b"]);
});
