import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "#kernel/log.ts";
import { type LogFolder, openLogFolder } from "./log-folder.ts";
import { openWriter } from "./open-writer.ts";

interface Stage {
  readonly path: string;
  readonly writer: DatabaseSync;
  readonly folder: LogFolder;
  /** Each time that commits were kept back, and let go. */
  readonly pauses: string[];
  write(rows: number): void;
  logBytes(): number;
}

async function stage(t: TestContext): Promise<Stage> {
  const directory = mkdtempSync(join(tmpdir(), "understudy-fold-"));
  const path = join(directory, "store.db");
  const writer = openWriter(path, { maxPages: undefined, checkpointPages: 1_000_000 });
  writer.exec("create table filler (data text)");
  const pauses: string[] = [];
  const pause = async (): Promise<Disposable> => {
    pauses.push("kept back");
    return { [Symbol.dispose]: () => void pauses.push("let go") };
  };
  const folder = await openLogFolder({ path, pages: 100, pause, log: silentLog });
  t.after(async () => {
    await folder.close();
    writer.close();
    rmSync(directory, { recursive: true });
  });
  const insert = writer.prepare("insert into filler values (?)");
  return {
    path,
    writer,
    folder,
    pauses,
    write: (rows) => {
      for (let row = 0; row < rows; row += 1) insert.run("x".repeat(3_000));
    },
    logBytes: () => statSync(`${path}-wal`).size,
  };
}

async function passed({ folder }: Stage): Promise<void> {
  for (let batch = 0; batch < 25; batch += 1) folder.committed(1);
  await folder.idle();
}

test("a long log is folded, and starts over with the next commit", async (t) => {
  const one = await stage(t);
  one.write(200);
  const long = one.logBytes();
  await passed(one);
  assert.deepEqual(one.pauses, ["kept back", "let go"]);
  one.write(150);
  assert.equal(one.logBytes(), long, "the log's own room is used again");
});

test("a short log keeps no commit back", async (t) => {
  const one = await stage(t);
  one.write(10);
  await passed(one);
  assert.deepEqual(one.pauses, []);
});

test("a reader's old snapshot keeps its log; once it is gone the log starts over", async (t) => {
  const one = await stage(t);
  one.write(10);
  const reader = new DatabaseSync(one.path, { readOnly: true });
  reader.exec("begin");
  const seen = (): unknown => reader.prepare("select count(*) as n from filler").get()?.["n"];
  assert.equal(seen(), 10);
  one.write(200);
  await passed(one);
  const before = one.logBytes();
  one.write(150);
  assert.ok(one.logBytes() > before, "the log goes on");
  assert.equal(seen(), 10);
  reader.exec("commit");
  reader.close();
  await passed(one);
  const long = one.logBytes();
  one.write(150);
  assert.equal(one.logBytes(), long);
});
