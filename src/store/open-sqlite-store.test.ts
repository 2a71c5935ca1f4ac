import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { test } from "node:test";
import { DatabaseSync } from "node:sqlite";
import { isOperational } from "#kernel/errors.ts";
import type { Statement, Store } from "./contract.ts";
import type { SqliteStoreOptions } from "./open-sqlite-store.ts";
import { openSqliteStore } from "./open-sqlite-store.ts";

const modulePath = join(import.meta.dirname, "open-sqlite-store.ts");

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "understudy-store-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Who folds the log: SQLite inside a commit, or a thread beside them. What a store promises is the same. */
const ways = [{ serving: false }, { serving: true }] as const;
type Way = (typeof ways)[number];

function bothWays(name: string, body: (t: TestContext, way: Way) => Promise<void>): void {
  for (const way of ways) {
    test(`${name} (${way.serving ? "folded beside" : "folded in commits"})`, (t) => body(t, way));
  }
}

async function opened(t: TestContext, options: Partial<SqliteStoreOptions> = {}): Promise<Store> {
  const store = await openSqliteStore({ path: join(directory(t), "data", "store.db"), ...options });
  t.after(() => store.close());
  return store;
}

function put(store: Store, site: string, data = "x", over: Partial<Statement> = {}): Statement {
  return { query: store.db.insertInto("catalogue").values({ site, data, at: 1 }).compile(), ...over };
}

async function sites(store: Store): Promise<string[]> {
  const rows = await store.db.selectFrom("catalogue").select("site").orderBy("site").execute();
  return rows.map((row) => row.site);
}

bothWays("calls of one turn share one durable batch, reported before anybody is told", async (t, way) => {
  const seen: string[] = [];
  const store = await opened(t, { ...way, onCommit: (count) => seen.push(`batch ${count}`) });
  const one = async (name: string): Promise<void> => {
    await store.commit([put(store, name)]);
    seen.push(name);
  };
  await Promise.all([one("a"), one("b"), one("c")]);
  await one("d");
  assert.deepEqual(seen, ["batch 1", "a", "b", "c", "batch 2", "d"]);
  assert.deepEqual(await sites(store), ["a", "b", "c", "d"]);
});

bothWays("a failing call is undone whole and leaves the others of its batch", async (t, way) => {
  let batches = 0;
  const store = await opened(t, { ...way, onCommit: (count) => (batches = count) });
  const results = await Promise.allSettled([
    store.commit([put(store, "a")]),
    store.commit([put(store, "b"), put(store, "a")]),
    store.commit([put(store, "c"), put(store, "d", "x", { expectRows: 2 })]),
    store.commit([put(store, "e", "x", { expectRows: 0, onMismatch: () => new Error("mine") })]),
    store.commit([put(store, "f", "x", { expectRows: 1 })]),
  ]);
  assert.deepEqual(
    results.map((result) => (result.status === "fulfilled" ? "ok" : (result.reason as Error).message)),
    [
      "ok",
      "the store refused the record: UNIQUE constraint failed: catalogue.site",
      "the record changed meanwhile: expected to touch 2 rows, touched 1; read it again, then repeat",
      "mine",
      "ok",
    ],
  );
  assert.deepEqual(await sites(store), ["a", "f"]);
  assert.equal(batches, 1);
});

bothWays("order is kept over more calls than one batch takes", async (t, way) => {
  const store = await opened(t, way);
  await store.commit([put(store, "s", "0")]);
  const step = (from: number): Statement => ({
    query: store.db
      .updateTable("catalogue")
      .set({ data: `${from + 1}` })
      .where("site", "=", "s")
      .where("data", "=", `${from}`)
      .compile(),
    expectRows: 1,
  });
  await Promise.all(Array.from({ length: 1_000 }, (_, from) => store.commit([step(from)])));
  assert.equal(
    (await store.db.selectFrom("catalogue").select("data").executeTakeFirstOrThrow()).data,
    "1000",
  );
});

bothWays("a statement that is a bug fails alone, as itself", async (t, way) => {
  const store = await opened(t, way);
  const query = { ...put(store, "a").query, sql: "insert into nowhere values (1)", parameters: [] };
  const results = await Promise.allSettled([store.commit([{ query }]), store.commit([put(store, "b")])]);
  assert.equal(results[1].status, "fulfilled");
  assert.ok(results[0].status === "rejected" && !isOperational(results[0].reason));
});

bothWays("the reading side cannot write, and a long read does not hold commits up", async (t, way) => {
  const store = await opened(t, way);
  await assert.rejects(store.db.insertInto("catalogue").values({ site: "a", data: "", at: 1 }).execute());
  for (let n = 0; n < 20; n += 1) await store.commit([put(store, `s${n}`)]);
  let read = 0;
  for await (const _row of store.db.selectFrom("catalogue").selectAll().stream()) {
    read += 1;
    await store.commit([put(store, `during-${read}`)]);
  }
  assert.equal(read, 20, "the reader keeps the state in which it began");
  assert.equal((await sites(store)).length, 40);
});

bothWays("the files are for one user only", async (t, way) => {
  const path = join(directory(t), "deep", "store.db");
  const store = await openSqliteStore({ path, ...way });
  t.after(() => store.close());
  await store.commit([put(store, "a")]);
  assert.equal(statSync(join(path, "..")).mode & 0o777, 0o700);
  for (const file of [path, `${path}-wal`, `${path}-shm`, `${path}.lock`]) {
    assert.equal(statSync(file).mode & 0o777, 0o600, file);
  }
});

bothWays("closing runs what was asked for, then refuses; twice is once", async (t, way) => {
  const path = join(directory(t), "store.db");
  const store = await openSqliteStore({ path, ...way });
  const last = store.commit([put(store, "a")]);
  await store.close();
  await last;
  await store.close();
  await assert.rejects(store.commit([]), { code: "store.failing" });
  const again = await openSqliteStore({ path, ...way });
  assert.deepEqual(await sites(again), ["a"]);
  await again.close();
});

test("a second process is told who holds the store; a killed holder is not waited for", async (t) => {
  const path = join(directory(t), "store.db");
  const script = `const { openSqliteStore } = await import(${JSON.stringify(modulePath)});
    await openSqliteStore({ path: ${JSON.stringify(path)} });
    process.stdout.write("open"); setInterval(() => {}, 1_000);`;
  const holder = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => holder.kill("SIGKILL"));
  const complaints: Buffer[] = [];
  holder.stderr.on("data", (chunk: Buffer) => complaints.push(chunk));
  await once(holder.stdout, "data");
  await assert.rejects(openSqliteStore({ path }), {
    code: "store.failing",
    message: new RegExp(`in use by process ${holder.pid} on `),
  });
  const reader = await openSqliteStore({ path, readOnly: true });
  assert.deepEqual(await sites(reader), []);
  await assert.rejects(reader.commit([]), { code: "store.failing" });
  await reader.close();
  holder.kill("SIGKILL");
  await once(holder, "exit");
  assert.equal(Buffer.concat(complaints).toString(), "", "opening prints nothing");
  const next = await openSqliteStore({ path });
  await next.close();
});

test("the thread that folds keeps no process alive", (t) => {
  const path = join(directory(t), "store.db");
  const script = `const { openSqliteStore } = await import(${JSON.stringify(modulePath)});
    const store = await openSqliteStore({ path: ${JSON.stringify(path)}, serving: true });
    const query = store.db.insertInto("catalogue").values({ site: "a", data: "", at: 1 }).compile();
    await store.commit([{ query }]);
    process.stdout.write("recorded");`;
  const ended = spawnSync(process.execPath, ["--input-type=module", "-e", script], { timeout: 20_000 });
  assert.deepEqual([ended.status, ended.stdout.toString(), ended.stderr.toString()], [0, "recorded", ""]);
});

test("a file that a newer program wrote is refused", async (t) => {
  const path = join(directory(t), "store.db");
  await (await openSqliteStore({ path })).close();
  const database = new DatabaseSync(path);
  database.exec("insert into migration values (99, 'from the future', 0)");
  database.close();
  await assert.rejects(openSqliteStore({ path }), { code: "store.version", message: /schema version 99/ });
  await assert.rejects(openSqliteStore({ path, readOnly: true }), { code: "store.version" });
});

test("a damaged file is named, not overwritten", async (t) => {
  const path = join(directory(t), "store.db");
  const text = "this is no database ".repeat(1_000);
  writeFileSync(path, text);
  await assert.rejects(openSqliteStore({ path }), {
    code: "store.failing",
    message: /store\.db is damaged or not a SQLite database/,
  });
  assert.equal(statSync(path).size, text.length);
});

bothWays(
  "at its quota the batch is refused whole, and the store goes on once there is room",
  async (t, way) => {
    const store = await opened(t, { ...way, maxPages: 80 });
    const large = "x".repeat(100_000);
    await store.commit([put(store, "first", large)]);
    const results = await Promise.allSettled([
      store.commit([put(store, "small")]),
      store.commit([put(store, "second", large), put(store, "third", large)]),
    ]);
    for (const result of results) {
      assert.ok(result.status === "rejected" && isOperational(result.reason, "store.full"));
      assert.equal(result.reason.outcome, "not_applied");
      assert.match(result.reason.message, /free space/);
    }
    assert.deepEqual(await sites(store), ["first"]);
    await store.commit([{ query: store.db.deleteFrom("catalogue").compile() }]);
    await store.commit([put(store, "later", large)]);
    assert.deepEqual(await sites(store), ["later"]);
  },
);

/** Mounting needs the right to; where it is missing, the quota test above stands in. */
function tmpfs(t: TestContext): string | undefined {
  const at = mkdtempSync(join(tmpdir(), "understudy-tmpfs-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", at]).status === 0;
  t.after(() => {
    if (mounted) assert.equal(spawnSync("umount", [at]).status, 0);
    rmdirSync(at);
  });
  return mounted ? at : undefined;
}

bothWays("on a full disk nothing is half done, and the store goes on once there is space", async (t, way) => {
  const at = tmpfs(t);
  if (at === undefined) {
    assert.notEqual(process.env["UNDERSTUDY_STRICT"], "1", "mounting a tmpfs needs root");
    t.skip("mounting a tmpfs needs root");
    return;
  }
  const store = await openSqliteStore({ path: join(at, "store.db"), ...way });
  try {
    let written = 0;
    const page = "x".repeat(50_000);
    const fill = async (): Promise<void> => {
      for (;;) {
        await store.commit([put(store, `s${written}`, page)]);
        written += 1;
      }
    };
    await assert.rejects(fill(), { code: "store.full", outcome: "not_applied" });
    assert.ok(written > 0);
    assert.equal((await sites(store)).length, written);
    await assert.rejects(store.commit([put(store, "still", page)]), { code: "store.full" });
    assert.equal(spawnSync("mount", ["-o", "remount,size=64m", at]).status, 0);
    await store.commit([put(store, "zz", page)]);
    assert.equal((await sites(store)).length, written + 1);
  } finally {
    await store.close();
  }
});
