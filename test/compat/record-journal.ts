// Records the journal that this version writes, as SQL text: `node test/compat/record-journal.ts`. Run once per schema
// version, by the change that raises it; a recorded file is never edited, since it stands for what users have on disk.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "#kernel/clock.ts";
import { openJournal } from "#journal/open-journal.ts";
import { schemaVersion } from "#store/migrations.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { environmentRow, recordedCommands, shop } from "./recorded-commands.ts";

function dump(path: string): string {
  const database = new DatabaseSync(path);
  const lines: string[] = [];
  const objects = database
    .prepare("select type, name, sql from sqlite_master where sql is not null order by type desc, name")
    .all();
  for (const { type, name, sql } of objects) {
    lines.push(`${String(sql)};`);
    if (type !== "table") continue;
    const columns = database
      .prepare(`pragma table_info("${String(name)}")`)
      .all()
      .map((column) => `quote("${String(column["name"])}")`);
    const rows = database
      .prepare(`select ${columns.join(" || ', ' || ")} as line from "${String(name)}"`)
      .all();
    for (const row of rows) lines.push(`insert into "${String(name)}" values (${String(row["line"])});`);
  }
  database.close();
  return `${lines.join("\n")}\n`;
}

const directory = mkdtempSync(join(tmpdir(), "understudy-record-"));
const path = join(directory, "store.db");
const store = await openSqliteStore({ path, clock: { ...systemClock, now: () => 1_700_000_000_000 } });
await store.commit([{ query: store.db.insertInto("environment").values(environmentRow).compile() }]);
const journal = await openJournal(store, { clock: systemClock });
for (const { intent, outcome } of recordedCommands) {
  await journal.recordIntent(intent);
  if (outcome !== null) await journal.recordOutcome(shop, intent.id, outcome);
}
const reader = { environment: shop, name: "standby", position: 2 };
await store.commit([{ query: store.db.insertInto("reader").values(reader).compile() }]);
await store.close();
const file = join(import.meta.dirname, `journal-schema-${schemaVersion}.sql`);
writeFileSync(file, dump(path), { flag: "wx" });
rmSync(directory, { recursive: true });
console.log(file);
