// Every journal that a released version recorded is opened and used by this one.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { commandId } from "#kernel/ids.ts";
import { openJournal } from "#journal/open-journal.ts";
import { schemaVersion } from "#store/migrations.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { recordedCommands, shop } from "./recorded-commands.ts";

const recordings = readdirSync(import.meta.dirname).filter((file) => /^journal-schema-\d+\.sql$/.test(file));

test("there is a recording of each schema version up to this one", () => {
  const wanted = Array.from({ length: schemaVersion }, (_, index) => `journal-schema-${index + 1}.sql`);
  assert.deepEqual(recordings.toSorted(), wanted.toSorted());
});

for (const recording of recordings) {
  test(`${recording} is opened, read and continued`, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), "understudy-compat-"));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const path = join(directory, "store.db");
    const database = new DatabaseSync(path);
    database.exec(readFileSync(join(import.meta.dirname, recording), "utf8"));
    database.close();

    const store = await openSqliteStore({ path });
    t.after(() => store.close());
    const journal = await openJournal(store, { clock: systemClock });
    const entries = await journal.tail(shop, 100);
    assert.deepEqual(
      entries.map(({ intent, outcome }) => ({ intent, outcome })),
      recordedCommands,
    );
    assert.deepEqual(
      entries.map(({ seq, position }) => [seq, position]),
      [
        [1, 1],
        [2, 2],
        [3, 3],
        [4, null],
        [5, 4],
        [6, null],
      ],
    );
    assert.deepEqual(await journal.counts(shop), { commands: 6, open: 2, head: 4 });
    const open = commandId("c-open");
    const late = { result: "refused", status: 404, errorCode: "Gone", changes: [], gaps: [] } as const;
    assert.deepEqual(await journal.recordOutcome(shop, open, { ...late, resolvedLater: true, at: 1 }), {
      position: 5,
    });
  });
}
