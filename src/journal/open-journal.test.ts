import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { commandId, environmentId } from "#kernel/ids.ts";
import type { CommandOutcome, Intent } from "#model/command.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import type { Journal } from "./contract.ts";
import { openJournal } from "./open-journal.ts";

const shop = environmentId("shop");

function intent(id: string, over: Partial<Intent> = {}): Intent {
  return {
    id: commandId(id),
    environment: shop,
    service: "ec2",
    operation: "RunInstances",
    input: { ImageId: "ami-1" },
    token: `token-${id}`,
    principal: "ops",
    epoch: 3,
    at: 1_000,
    ...over,
  };
}

function outcome(over: Partial<CommandOutcome> = {}): CommandOutcome {
  return {
    result: "applied",
    status: 200,
    errorCode: null,
    changes: [],
    gaps: [],
    resolvedLater: false,
    at: 2_000,
    ...over,
  };
}

const environmentRow = (epoch: number) => ({
  id: shop,
  active_site: "a",
  standby_site: "b",
  phase: "protected",
  epoch,
  updated_at: 0,
});

function pathOf(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "understudy-journal-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, "store.db");
}

type Open = (epoch?: number) => Promise<{ store: Store; journal: Journal }>;

/** Where records go: straight into the tables, or into the redo log first. What a journal promises is the same. */
function bothWays(name: string, body: (t: TestContext, open: Open) => Promise<void>): void {
  for (const serving of [false, true]) {
    test(`${name} (${serving ? "of a process that serves" : "in memory"})`, (t) =>
      body(t, async (epoch = 3) => {
        const store = await openSqliteStore(serving ? { path: pathOf(t), serving } : { path: ":memory:" });
        t.after(() => store.close());
        const query = store.db.insertInto("environment").values(environmentRow(epoch)).compile();
        await store.commit([{ query }]);
        return { store, journal: await openJournal(store, { clock: systemClock }) };
      }));
  }
}

bothWays("an entry reads back as it was recorded", async (_t, open) => {
  const { journal } = await open();
  const given = intent("c1");
  const said = outcome({
    status: 202,
    changes: [{ type: "delete", kind: "server", id: "i-1" as never }],
    gaps: [{ code: "operation.untranslated", severity: "note", message: "m" }],
    resolvedLater: true,
  });
  assert.equal((await journal.recordIntent(given)).seq, 1);
  assert.deepEqual(await journal.open(shop), [{ seq: 1, intent: given, position: null, outcome: null }]);
  assert.deepEqual(await journal.recordOutcome(shop, given.id, said), { position: 1 });
  assert.deepEqual(await journal.open(shop), []);
  const entry = { seq: 1, intent: given, position: 1, outcome: said };
  assert.deepEqual(await journal.read(shop, 0, 10), [entry]);
  assert.deepEqual(await journal.tail(shop, 10), [entry]);
  assert.deepEqual(await journal.readChanges(shop, 0, 10), [{ position: 1, changes: said.changes }]);
  assert.deepEqual(await journal.counts(shop), { commands: 1, open: 0, head: 1 });
});

bothWays("positions follow the order of outcomes, seq that of intents", async (_t, open) => {
  const { journal } = await open();
  const ids = ["c1", "c2", "c3"];
  const seqs = await Promise.all(ids.map((id) => journal.recordIntent(intent(id))));
  assert.deepEqual(
    seqs.map(({ seq }) => seq),
    [1, 2, 3],
  );
  await Promise.all(ids.toReversed().map((id) => journal.recordOutcome(shop, commandId(id), outcome())));
  assert.deepEqual(
    (await journal.read(shop, 0, 10)).map((entry) => entry.intent.id),
    ["c3", "c2", "c1"],
  );
  assert.deepEqual(
    (await journal.read(shop, 1, 1)).map((entry) => entry.intent.id),
    ["c2"],
  );
  assert.deepEqual(
    (await journal.tail(shop, 2)).map((entry) => entry.seq),
    [2, 3],
  );
  assert.deepEqual(
    (await journal.tail(shop, 2, 2)).map((entry) => entry.seq),
    [1],
  );
});

bothWays("an intent under another epoch is refused and says both epochs", async (_t, open) => {
  const { journal } = await open(7);
  await assert.rejects(journal.recordIntent(intent("c1", { epoch: 6 })), (error) => {
    assert.ok(isOperational(error, "state.fenced"));
    assert.match(error.message, /epoch 7.*epoch 6/);
    return true;
  });
  await assert.rejects(journal.recordIntent(intent("c1", { epoch: 8 })), { code: "state.fenced" });
  assert.deepEqual(await journal.counts(shop), { commands: 0, open: 0, head: 0 });
  assert.equal((await journal.recordIntent(intent("c2", { epoch: 7 }))).seq, 1);
});

bothWays("an intent for an unknown environment is refused", async (_t, open) => {
  const { journal } = await open();
  await assert.rejects(journal.recordIntent(intent("c1", { environment: environmentId("other") })), {
    code: "not_found",
  });
});

bothWays("a fenced intent among others in one batch takes none of them with it", async (_t, open) => {
  const { journal } = await open();
  const results = await Promise.allSettled([
    journal.recordIntent(intent("c1")),
    journal.recordIntent(intent("c2", { epoch: 2 })),
    journal.recordIntent(intent("c3")),
    journal.recordIntent(intent("c1")),
  ]);
  assert.deepEqual(
    results.map((result) => result.status),
    ["fulfilled", "rejected", "fulfilled", "rejected"],
  );
  assert.deepEqual(
    (await journal.open(shop)).map((entry) => entry.intent.id),
    ["c1", "c3"],
  );
  assert.equal((await journal.recordIntent(intent("c4"))).seq, 4);
});

bothWays("what was checked once holds only until the next commit", async (_t, open) => {
  const { store, journal } = await open();
  const fence = (epoch: number) =>
    store.commit([{ query: store.db.updateTable("environment").set({ epoch }).compile(), expectRows: 1 }]);
  await journal.recordIntent(intent("c1"));
  const before = journal.recordIntent(intent("c2"));
  const moved = fence(4);
  const late = journal.recordIntent(intent("c3"));
  const next = journal.recordIntent(intent("c4", { epoch: 4 }));
  await assert.rejects(late, { code: "state.fenced" });
  await Promise.all([before, moved, next]);
  await journal.recordIntent(intent("c5", { epoch: 4 }));
  await assert.rejects(journal.recordIntent(intent("c6")), { code: "state.fenced" });
  assert.deepEqual(
    (await journal.open(shop)).map((entry) => entry.intent.id),
    ["c1", "c2", "c4", "c5"],
  );
});

bothWays("an id that was used, and a second outcome, are refused however they come", async (_t, open) => {
  const { journal } = await open();
  await journal.recordIntent(intent("c1"));
  const second = await journal.recordIntent(intent("c2"));
  await assert.rejects(journal.recordIntent(intent("c2")), { code: "state.conflict" });
  await assert.rejects(journal.recordIntent(intent("c1")), { code: "state.conflict" });
  const third = await journal.recordIntent(intent("c3"));
  await journal.recordOutcome(shop, commandId("c3"), outcome());
  await assert.rejects(journal.recordOutcome(shop, commandId("c3"), outcome(), third), {
    code: "state.conflict",
  });
  await journal.recordOutcome(shop, commandId("c2"), outcome(), second);
  await assert.rejects(journal.recordOutcome(shop, commandId("c2"), outcome(), second), {
    code: "state.conflict",
  });
  assert.deepEqual(
    (await journal.read(shop, 0, 10)).map(({ intent: { id }, position }) => [id, position]),
    [
      ["c3", 1],
      ["c2", 2],
    ],
  );
});

bothWays("an unknown outcome takes no position and stays open until it is final", async (_t, open) => {
  const { journal } = await open();
  const { id } = intent("c1");
  await journal.recordIntent(intent("c1"));
  assert.deepEqual(await journal.recordOutcome(shop, id, outcome({ result: "unknown", status: null })), {
    position: null,
  });
  assert.deepEqual(await journal.read(shop, 0, 10), []);
  assert.equal((await journal.open(shop))[0]?.outcome?.result, "unknown");
  assert.deepEqual(await journal.recordOutcome(shop, id, outcome({ resolvedLater: true })), { position: 1 });
  assert.deepEqual(await journal.open(shop), []);
});

bothWays("a final outcome is never changed", async (_t, open) => {
  const { journal } = await open();
  const { id } = intent("c1");
  await journal.recordIntent(intent("c1"));
  await journal.recordOutcome(shop, id, outcome({ result: "refused", status: 400 }));
  await assert.rejects(journal.recordOutcome(shop, id, outcome()), { code: "state.conflict" });
  await assert.rejects(journal.recordOutcome(shop, id, outcome({ result: "unknown" })), {
    code: "state.conflict",
  });
  assert.equal((await journal.read(shop, 0, 10))[0]?.outcome?.result, "refused");
  await assert.rejects(journal.recordOutcome(shop, commandId("never"), outcome()), { code: "not_found" });
  await journal.recordIntent(intent("c2"));
  assert.deepEqual(await journal.recordOutcome(shop, commandId("c2"), outcome()), { position: 2 });
});

bothWays("changed resolves with the record that moves the head, and with the signal", async (_t, open) => {
  const { journal } = await open();
  const never = new AbortController();
  const waiting = journal.changed(shop, 0, never.signal);
  await journal.recordIntent(intent("c1"));
  await journal.recordOutcome(shop, commandId("c1"), outcome());
  await waiting;
  await journal.changed(shop, 0, never.signal);
  const second = journal.changed(shop, 1, never.signal);
  never.abort();
  await second;
  assert.equal(await journal.head(shop), 1);
});

bothWays("trim removes what every reader has passed, and keeps numbering", async (_t, open) => {
  const { store, journal } = await open();
  for (const id of ["c1", "c2", "c3", "c4"]) await journal.recordIntent(intent(id));
  for (const id of ["c1", "c3", "c4"]) await journal.recordOutcome(shop, commandId(id), outcome());
  assert.equal(await journal.trim(shop, 100, 10), 0, "nobody has read anything");
  const reader = (name: string, position: number) => ({
    query: store.db
      .insertInto("reader")
      .values({ environment: shop, name, position })
      .onConflict((on) => on.columns(["environment", "name"]).doUpdateSet({ position }))
      .compile(),
  });
  await store.commit([reader("state", 3), reader("standby", 1)]);
  assert.equal(await journal.trim(shop, 100, 10), 1);
  await store.commit([reader("standby", 3)]);
  assert.equal(await journal.trim(shop, 100, 10), 1);
  assert.equal(await journal.trim(shop, 100, 10), 0);
  assert.deepEqual(
    (await journal.tail(shop, 10)).map((entry) => entry.intent.id),
    ["c2", "c4"],
  );
  const again = await openJournal(store, { clock: systemClock });
  assert.equal((await again.recordIntent(intent("c5"))).seq, 5);
  assert.deepEqual(await again.recordOutcome(shop, commandId("c5"), outcome()), { position: 4 });
});

test("a reader of another process's journal sees it move", async (t) => {
  const path = pathOf(t);
  const store = await openSqliteStore({ path });
  t.after(() => store.close());
  await store.commit([{ query: store.db.insertInto("environment").values(environmentRow(3)).compile() }]);
  const writer = await openJournal(store, { clock: systemClock });
  const readOnly = await openSqliteStore({ path, readOnly: true });
  t.after(() => readOnly.close());
  const reader = await openJournal(readOnly, { clock: systemClock, pollMs: 5 });
  const waiting = reader.changed(shop, 0, AbortSignal.timeout(10_000));
  await writer.recordIntent(intent("c1"));
  await writer.recordOutcome(shop, commandId("c1"), outcome());
  await waiting;
  assert.equal(await reader.head(shop), 1);
  await assert.rejects(reader.recordIntent(intent("c2")), { code: "store.failing" });
});

test("numbers of a batch that found no space are used again once there is room", async (t) => {
  const store = await openSqliteStore({ path: pathOf(t), maxPages: 100 });
  t.after(() => store.close());
  await store.commit([{ query: store.db.insertInto("environment").values(environmentRow(3)).compile() }]);
  const journal = await openJournal(store, { clock: systemClock });
  await journal.recordIntent(intent("c1"));
  const tooLarge = ["c2", "c3"].map((id) => journal.recordIntent(intent(id, { input: "x".repeat(300_000) })));
  for (const result of await Promise.allSettled(tooLarge)) {
    assert.ok(result.status === "rejected" && isOperational(result.reason, "store.full"));
  }
  assert.equal((await journal.recordIntent(intent("c4"))).seq, 2);
  assert.deepEqual(
    (await journal.open(shop)).map((entry) => entry.intent.id),
    ["c1", "c4"],
  );
});
